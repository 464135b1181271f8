"""PSNR and MS-SSIM."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from cod_jax.errors import UserError
from cod_jax.evaluation import metrics
from cod_jax.losses.similarity import SCALE_WEIGHTS, num_ms_ssim_scales


def _pair(height: int, width: int, noise: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(height * width)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = 128 + 80 * np.sin(rows / 7)[..., None] * np.cos(columns / (5 + np.arange(3)).reshape(3, 1, 1)).transpose(
        1, 2, 0
    )
    noisy = smooth + generator.normal(0, noise, smooth.shape)
    return smooth.clip(0, 255).astype(np.uint8), noisy.clip(0, 255).astype(np.uint8)


def _ssim_and_contrast(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return SSIM by scikit-image, and the contrast factor as SSIM with the luminance factor divided out."""
    c1 = (0.01 * 255) ** 2
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    ssim, contrast = [], []
    for channel in range(3):
        a, b = x[..., channel], y[..., channel]
        full = structural_similarity(a, b, data_range=255, full=True, **options)[1]
        mean_a, mean_b = (gaussian_filter(plane, 1.5, truncate=3.5) for plane in (a, b))
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        inside = (slice(5, -5), slice(5, -5))
        ssim.append(full[inside].mean())
        contrast.append((full / luminance)[inside].mean())
    return np.array(ssim), np.array(contrast)


def test_psnr_of_a_known_difference():
    reference = np.full((4, 5, 3), 100, np.uint8)
    assert metrics.psnr(reference, reference + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))
    assert metrics.psnr(reference / 255, (reference + 5) / 255, data_range=1.0) == pytest.approx(34.151, abs=1e-3)


def test_psnr_of_equal_pictures_is_infinite():
    image, _ = _pair(8, 8)
    assert metrics.psnr(image, image) == math.inf


def test_psnr_of_uint8_does_not_wrap_around():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert metrics.psnr(black, white) == metrics.psnr(white, black) == 0


def test_ms_ssim_is_the_product_of_ssim_at_five_scales():
    reference, image = _pair(192, 176)
    x, y = reference.astype(np.float64), image.astype(np.float64)
    product = np.ones(3)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        ssim, contrast = _ssim_and_contrast(x, y)
        product *= (ssim if scale == 4 else contrast) ** weight
        x, y = (a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2, 3).mean((1, 3)) if scale < 4 else a for a in (x, y))
    assert num_ms_ssim_scales(192, 176) == 5
    assert metrics.ms_ssim(reference, image) == pytest.approx(product.mean(), abs=1e-9)


def test_ms_ssim_of_a_small_picture_is_ssim():
    reference, image = _pair(20, 16)
    ssim, _ = _ssim_and_contrast(reference.astype(np.float64), image.astype(np.float64))
    # The weights sum to 1.0001.
    assert metrics.ms_ssim(reference, image) == pytest.approx((ssim**1.0001).mean(), abs=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (10, 7), (45, 33), (163, 171)])
def test_ms_ssim_takes_any_size(size: tuple[int, int]):
    reference, image = _pair(*size)
    assert metrics.ms_ssim(reference, reference) == pytest.approx(1)
    assert 0 <= metrics.ms_ssim(reference, image) < 1


def test_ms_ssim_does_not_depend_on_the_range():
    reference, image = _pair(40, 40)
    scaled = metrics.ms_ssim(reference / 255, image / 255, data_range=1.0)
    assert scaled == pytest.approx(metrics.ms_ssim(reference, image))


def test_ms_ssim_of_an_inverted_picture_is_zero_not_nan():
    reference, _ = _pair(40, 40)
    assert metrics.ms_ssim(reference, 255 - reference) == 0


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ms_ssim])
def test_pictures_of_different_shapes_are_refused(measure):
    with pytest.raises(ValueError, match=r"got \(4, 4, 3\) and \(4, 5, 3\)"):
        measure(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ms_ssim])
def test_the_range_of_floating_point_values_must_be_said(measure):
    image01 = np.full((16, 16, 3), 0.5)
    with pytest.raises(UserError, match="expected data_range with floating-point values, got none; give 1 for"):
        measure(image01, image01)
    for data_range in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="expected data_range to be a positive number"):
            measure(image01, image01, data_range=data_range)


def test_pictures_of_different_ranges_are_refused():
    reference, image = _pair(16, 16)
    for metric in (metrics.psnr, metrics.ms_ssim, metrics.mean_squared_error):
        with pytest.raises(UserError, match="expected two pictures of one range, got uint8 and float64; convert one"):
            metric(reference, image / 255)
