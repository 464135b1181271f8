"""The transform that compact models start with."""

import numpy as np
import pytest

from cod_jax.models.patch_transform import PATCH_VALUES, SMALLEST_SCALE, PatchMoments, patch_moments, transform
from tests.model_fixtures import gradient_image


def pictures(count: int = 6) -> list[np.ndarray]:
    """Return smooth pictures with some noise, so that every component has variance."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 8, (count, 96, 80, 3))
    return [np.clip(gradient_image(96, 80) // 2 + noise[i] + 9 * i, 0, 255).astype(np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def moments() -> PatchMoments:
    return patch_moments(pictures())


def test_moments_are_those_of_all_turned_and_mirrored_pictures(moments: PatchMoments):
    turned = [np.rot90(image, turns) for image in pictures() for turns in range(4)]
    patches = [
        (image[row : row + 16, column : column + 16] / 127.5 - 1).reshape(-1)
        for image in [*turned, *(image[:, ::-1] for image in turned)]
        for row in range(0, image.shape[0], 16)
        for column in range(0, image.shape[1], 16)
    ]
    np.testing.assert_allclose(moments.mean, np.mean(patches, axis=0), atol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(np.array(patches).T, bias=True), atol=1e-12)


@pytest.mark.parametrize("change", [lambda x: x[:, ::-1], lambda x: x[::-1], lambda x: x.swapaxes(0, 1)])
def test_mirrored_and_turned_pictures_have_the_same_moments(moments: PatchMoments, change):
    other = patch_moments(map(change, pictures()))
    np.testing.assert_array_equal(other.mean, moments.mean)
    np.testing.assert_array_equal(other.covariance, moments.covariance)


@pytest.mark.parametrize(("channels", "latents", "pitch"), [(40, 12, 16), (40, 10, 8), (40, 40, 16), (768, 64, 16)])
@pytest.mark.parametrize("even", [False, True])
def test_the_transform_is_orthonormal_even_where_pictures_have_no_variance(
    moments: PatchMoments, channels: int, latents: int, pitch: int, even: bool
):
    given = patch_moments([np.full((32, 32, 3), 7, np.uint8)]) if even else moments
    made = transform(given, channels, latents, pitch)
    assert made.basis.shape == (PATCH_VALUES, channels)
    np.testing.assert_allclose(made.basis.T @ made.basis, np.eye(channels), atol=1e-9)
    assert made.scales.min() >= SMALLEST_SCALE
    np.testing.assert_array_equal(made.mean, given.mean)


def test_components_are_uncorrelated_and_the_strongest_first(moments: PatchMoments):
    made = transform(moments, 50, 20, 16)
    covariance = made.basis.T @ moments.covariance @ made.basis
    np.testing.assert_allclose(covariance, np.diag(made.scales**2), atol=1e-9)
    assert (np.diff(made.scales) < 1e-9).all()
    # The largest number of a component is positive, so that no library chooses the sign.
    assert (made.basis[np.abs(made.basis).argmax(axis=0), np.arange(50)] > 0).all()


def test_at_pitch_8_each_quarter_has_the_same_components_of_its_own(moments: PatchMoments):
    made = transform(moments, 60, 12, 8)
    parts = made.basis[:, :48].reshape(2, 8, 2, 8, 3, 4, 12).transpose(0, 2, 5, 1, 3, 4, 6).reshape(4, 4, 192, 12)
    for quarter in range(4):
        np.testing.assert_array_equal(parts[quarter, quarter], parts[0, 0])
        others = [other for other in range(4) if other != quarter]
        assert not parts[quarter, others].any()
