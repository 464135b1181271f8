import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.evaluation.metrics import ms_ssim
from cod_jax.losses.perceptual import (
    ms_ssim_terms,
    ms_ssim_weights,
    num_ms_ssim_scales,
    scales,
    similarity,
    structural_distance_per_image,
)


@jax.jit
def distance_and_gradient(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    distance, pull_back = jax.vjp(lambda a: structural_distance_per_image(a, b), a)
    return distance, pull_back(jnp.ones_like(distance))[0]


def picture(height: int, width: int) -> np.ndarray:
    """Waves and an edge in [-1, 1]."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = 0.4 * np.sin(rows / 2.5)[..., None] * np.cos(columns[..., None] / (2 + np.arange(3)))
    return (waves + np.where(columns > width // 2, 0.5, -0.3)[..., None]).clip(-1, 1).astype(np.float32)


def blurred(image: np.ndarray) -> np.ndarray:
    """Means of each pixel and its eight neighbours."""
    height, width, _ = image.shape
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [padded[row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return np.mean(np.stack(shifted), axis=0)


def test_distance_grows_with_blur_and_with_noise_and_its_gradient_is_always_finite():
    image = picture(33, 40)
    noise = np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
    flat = np.full_like(image, 0.3)
    others = {
        "itself": image,
        "blur": blurred(image),
        "more blur": blurred(blurred(blurred(image))),
        "noise": image + 0.05 * noise,
        "more noise": image + 0.2 * noise,
        "inverse": -image,
        "flat": flat,
        "out of range": 3 * image - 2,
    }
    # Two flat pictures, equal or not, have no edges and no structure to compare.
    a = np.stack([image] * len(others) + [flat, flat])
    b = np.stack([*others.values(), flat, -flat])
    for x, y in ((a, b), (b, a)):
        distances, gradient = distance_and_gradient(jnp.asarray(x), jnp.asarray(y))
        assert np.all(np.isfinite(gradient))
        assert np.all(distances <= 3)
        of = dict(zip([*others, "flat and flat", "flat and darker"], distances.tolist(), strict=True))
        assert of["itself"] == of["flat and flat"] == 0
        np.testing.assert_allclose(gradient[0], 0, atol=1e-5)
        np.testing.assert_allclose(gradient[-2], 0, atol=1e-5)
        assert 0 < of["blur"] < of["more blur"] < of["flat"]
        assert 0 < of["noise"] < of["more noise"]
        assert of["inverse"] > 1
        assert of["flat and darker"] > 0


def test_following_the_gradient_sharpens():
    image = picture(33, 40)
    a = jnp.asarray(np.stack([blurred(image)] * 10))
    b = jnp.asarray(np.stack([image] * 10))
    before, gradient = distance_and_gradient(a, b)
    after, _ = distance_and_gradient(a - 0.05 * gradient / jnp.max(jnp.abs(gradient)), b)
    assert after[0] < before[0]


def test_sides_below_32_pixels_are_refused():
    with pytest.raises(ValueError, match="31x64 pixels; both sides must have at least 32"):
        jax.eval_shape(structural_distance_per_image, *[jnp.zeros((1, 31, 64, 3))] * 2)


@pytest.mark.parametrize(("size", "num_scales"), [((32, 32), 2), ((64, 48), 3), ((256, 161), 5)])
def test_small_pictures_have_fewer_scales_of_the_same_total_weight(size, num_scales):
    assert num_ms_ssim_scales(*size) == num_scales == len(ms_ssim_weights(*size))
    assert sum(ms_ssim_weights(*size)) == pytest.approx(1.0001)


def test_terms_are_those_of_ms_ssim_as_it_is_evaluated():
    # Sides that can be halved: where a side is odd, evaluation repeats a row where the published code adds a black one.
    a = picture(48, 56)
    b = blurred(a)
    weights = ms_ssim_weights(48, 56)

    @jax.jit
    def terms(a, b):
        pairs = zip(scales(a, len(weights)), scales(b, len(weights)), strict=True)
        return ms_ssim_terms([similarity(x, y) for x, y in pairs])

    product = np.prod([np.asarray(t[0]) ** w for t, w in zip(terms(a[None], b[None]), weights, strict=True)], axis=0)
    assert product.mean() == pytest.approx(ms_ssim((a + 1) / 2, (b + 1) / 2, data_range=1.0), abs=1e-5)


def test_a_black_pixel_is_put_in_front_of_odd_sides():
    white = jnp.ones((1, 3, 4, 1))
    np.testing.assert_allclose(scales(white, 2)[1][0, :, :, 0], [[0, 0], [0.5, 0.5]], atol=1e-7)
