"""Fréchet distance and patches against the published implementations (torch-fidelity, pytorch-fid, torchmetrics)."""

import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.evaluation.fid import frechet_distance, patch_corners, patches
from tests.parity.cases import FrozenCase

CASE = FrozenCase("fid")
# Half of the published values are eigenvalue routes, which are noisy where samples are fewer than features.
EXACT, PUBLISHED = 1e-6, 1e-3


def test_distance_of_samples_that_are_fewer_than_their_features():
    value = frechet_distance(CASE.arrays["s_feats1"], CASE.arrays["s_feats2"])
    np.testing.assert_allclose(value, CASE.arrays["s_fid_svd"], rtol=EXACT)
    np.testing.assert_allclose(value, CASE.arrays["s_fid"], rtol=PUBLISHED)


def test_distance_of_samples_that_are_more_than_their_features():
    few, more = (CASE.arrays[name].astype(np.float64) for name in ("s_feats1", "s_feats2"))
    a, b = few[:, :20], more[:, :20]
    covariances = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real)
    expected = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + np.trace(sum(covariances)) - 2 * np.sum(roots)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=EXACT)


@pytest.mark.parametrize("other", ["g_fid", "g_fid_shift"])
def test_distance_of_gaussians(other):
    """Samples that have exactly the mean and the covariance of a Gaussian stand for it."""

    def samples(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        root = np.linalg.cholesky(covariance).T * np.sqrt((2 * len(mean) - 1) / 2)
        return np.concatenate([root, -root]) + mean

    mean, covariance = CASE.arrays["g_mu1"], CASE.arrays["g_sigma1"]
    changed = CASE.arrays["g_sigma2"] if other == "g_fid" else covariance
    value = frechet_distance(samples(mean, covariance), samples(CASE.arrays["g_mu2"], changed))
    np.testing.assert_allclose(value, CASE.arrays[other], rtol=EXACT)


def test_equal_sets_have_no_distance():
    features = CASE.arrays["s_feats1"]
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    with pytest.raises(UserError, match="at least two features"):
        frechet_distance(features[:1], features)
    with pytest.raises(UserError, match="expected finite features"):
        frechet_distance(features * np.nan, features)
    with pytest.raises(UserError, match="expected patches of at least one pixel, got 0"):
        patches(np.zeros((4, 4, 3), np.uint8), 0)


@pytest.mark.parametrize("name", [name for name in CASE.arrays.files if name.endswith("_yx")])
def test_corners_of_patches(name):
    size, patch = name.split("_")[1:3]
    height, width = map(int, size.split("x"))
    np.testing.assert_array_equal(patch_corners(height, width, int(patch[1:])), CASE.arrays[name])


@pytest.mark.parametrize(
    ("picture", "name", "size"), [("patch", "512x768", 64), ("patch", "512x768", 256), ("pfid", "192x320", 64)]
)
def test_patches_are_cut_where_they_should_be(picture, name, size):
    cut = patches(CASE.image_uint8(picture)[0], size)
    np.testing.assert_allclose(cut.mean(axis=(1, 2)), CASE.arrays[f"patch_{name}_p{size}_mean"], rtol=1e-5)
    assert patches(CASE.image_uint8(picture)[0][:60], 64).shape == (0, 64, 64, 3)
