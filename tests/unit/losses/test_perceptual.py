import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.losses.perceptual import structural_distance_per_image


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
    with pytest.raises(ValueError, match="sides of at least 32 pixels, got 31x64"):
        jax.eval_shape(structural_distance_per_image, *[jnp.zeros((1, 31, 64, 3))] * 2)
