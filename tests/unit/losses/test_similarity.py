import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.losses.similarity import ms_ssim_per_image, ms_ssim_weights, num_ms_ssim_scales, psnr_per_image, scales


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return waves and a noisy copy, float32 [2, H, W, 3] in [-1, 1]."""
    rows, columns, channels = np.ogrid[0:height, 0:width, 0:3]
    waves = 0.6 * np.sin(rows / 2.5) * np.cos(columns / (2 + channels))
    noise = np.random.default_rng(height * width).normal(0, 0.1, (2, height, width, 3))
    return np.stack([waves, -waves]).astype(np.float32), (waves * [[[[1]]], [[[-1]]]] + noise).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), 1), ((20, 900), 1), ((21, 21), 2), ((80, 81), 3), ((160, 300), 4), ((161, 161), 5), ((4000, 4000), 5)],
)
def test_scales_fit_into_the_picture(size: tuple[int, int], expected: int):
    assert num_ms_ssim_scales(*size) == expected


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (256, 161)])
def test_fewer_scales_have_the_same_total_weight(size):
    assert len(ms_ssim_weights(*size)) == num_ms_ssim_scales(*size)
    assert sum(ms_ssim_weights(*size)) == pytest.approx(1.0001)


@pytest.mark.parametrize("namespace", [np, jnp])
def test_a_black_pixel_is_put_in_front_of_odd_sides(namespace):
    white = namespace.ones((1, 3, 4, 1))
    np.testing.assert_allclose(scales(white, 2)[1][0, :, :, 0], [[0, 0], [0.5, 0.5]], atol=1e-7)


@pytest.mark.parametrize("size", [(48, 56), (45, 57), (9, 13)])
def test_devices_and_host_agree(size):
    a, b = pair(*size)
    for measure, tolerance in ((ms_ssim_per_image, 1e-5), (lambda a, b: psnr_per_image(a, b, data_range=2.0), 1e-4)):
        on_device, on_host = jax.jit(measure)(a, b), measure(a, b)
        assert (on_device.dtype, on_host.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(on_device, on_host, atol=tolerance)


def test_gradient_is_finite_where_terms_are_not_positive():
    a, _ = pair(16, 16)
    value, gradient = jax.jit(jax.value_and_grad(lambda b: jnp.sum(ms_ssim_per_image(jnp.asarray(a), b))))(-a)
    assert value == 0
    assert jnp.all(jnp.isfinite(gradient))


def test_psnr_of_equal_images_is_infinite_or_the_limit():
    image = np.full((1, 4, 4, 3), 7, np.uint8)
    assert psnr_per_image(image, image) == np.inf
    for array in (image, jnp.asarray(image)):
        np.testing.assert_allclose(psnr_per_image(array, array, limit=100.0), 100)
        np.testing.assert_allclose(psnr_per_image(array, array + np.uint8(5), limit=100.0), 34.1514, atol=1e-4)
