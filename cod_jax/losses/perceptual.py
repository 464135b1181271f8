"""A perceptual distance that needs no weights: structural similarity and edges at several scales."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cod_jax.errors import UserError

# Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment".
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
WINDOW_SIGMA = 1.5
K1, K2 = 0.01, 0.03

SMALLEST_SIDE = 32
BLACK = -0.5
# Xue et al. 2014, "Gradient magnitude similarity deviation": 170 for values up to 255.
EDGE_STABILITY = 170 / 255**2
# Added to squared gradients, so that their root has a gradient where a picture is flat.
EDGE_FLOOR = 1e-6


class Similarity(NamedTuple):
    """SSIM [B, C] and its factor of contrast and structure [B, C], means over the positions of one scale; at most 1."""

    ssim: Float[Array, "B C"]
    contrast: Float[Array, "B C"]


def structural_distance_per_image(a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    """Distance of each pair of images, float32: 0 for equal ones, about 1 for unrelated ones, at most 3.

    The sum of two distances, both averaged over the channels:

    - 1 minus the terms of MS-SSIM, weighted by their exponents: for similar images 1 - MS-SSIM, to first order. Their
      product, MS-SSIM itself, has no bounded gradient where a term is near 0, and none where one is negative.
    - 1 minus the similarity of gradient magnitudes (Xue et al. 2014, equation 4), the mean over the scales. All scales
      count the same, where MS-SSIM has 4 % of its weight on the finest, the first to show blur.

    Args:
        a: Images in about [-1, 1] with sides of at least 32 pixels; small ones are compared at fewer scales than five.
        b: The images they are compared with.

    Raises:
        UserError: A side is shorter than 32 pixels.
    """
    _, height, width, _ = a.shape
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(f"images of {height}x{width} pixels; both sides must have at least {SMALLEST_SIDE}")
    weights = ms_ssim_weights(height, width)
    pairs = list(zip(scales(a, len(weights)), scales(b, len(weights)), strict=True))
    terms = ms_ssim_terms([similarity(x, y) for x, y in pairs])
    structure = jnp.stack([w * (1 - jnp.mean(term, axis=-1)) for w, term in zip(weights, terms, strict=True)])
    edges = jnp.stack([_edge_distance(x, y) for x, y in pairs])
    return jnp.sum(structure, axis=0) + jnp.mean(edges, axis=0)


def num_ms_ssim_scales(height: int, width: int) -> int:
    """Count the scales at which the window of MS-SSIM fits into a picture, 1 to 5."""
    shortest = min(height, width)
    return sum(scale == 0 or shortest > (WINDOW - 1) * 2**scale for scale in range(len(SCALE_WEIGHTS)))


def ms_ssim_weights(height: int, width: int) -> tuple[float, ...]:
    """Exponents of MS-SSIM at the scales that fit; they always have the sum of all five, which is 1.0001."""
    weights = SCALE_WEIGHTS[: num_ms_ssim_scales(height, width)]
    return tuple(weight * (sum(SCALE_WEIGHTS) / sum(weights)) for weight in weights)


def ms_ssim_terms(similarities: Sequence[Similarity]) -> list[Float[Array, "B C"]]:
    """What MS-SSIM is a product of powers of: contrast, and SSIM at the coarsest scale."""
    return [scale.contrast for scale in similarities[:-1]] + [similarities[-1].ssim]


def scales(image: Float[Array, "B H W C"], num_scales: int) -> list[Float[Array, "B h w C"]]:
    """An image in [-1, 1] and its 2x2 means, those of the means, and so on; float32 in [-0.5, 0.5].

    An odd side gets a black pixel in front, which counts in the mean: so does the public implementation that others
    measure with (pytorch-msssim, `avg_pool2d` with padding).
    """
    # With grey at 0 the squares that variances are differences of are smallest.
    levels = [image.astype(jnp.float32) / 2]
    for _ in range(num_scales - 1):
        _, height, width, _ = levels[-1].shape
        padding = ((0, 0), (height % 2, 0), (width % 2, 0), (0, 0))
        x = jnp.pad(levels[-1], padding, constant_values=BLACK)
        batch, height, width, channels = x.shape
        levels.append(jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4)))
    return levels


def similarity(a: Float[Array, "B h w C"], b: Float[Array, "B h w C"]) -> Similarity:
    """SSIM of images in [-0.5, 0.5] at one scale, within the Gaussian window, where it fits."""
    moments = _blur(jnp.concatenate([a, b, a * a, b * b, a * b], axis=-1))
    mean_a, mean_b, square_a, square_b, product = jnp.split(moments, 5, axis=-1)
    c1, c2 = K1**2, K2**2
    spread = (square_a - mean_a**2) + (square_b - mean_b**2)
    contrast = (2 * (product - mean_a * mean_b) + c2) / (spread + c2)
    light_a, light_b = mean_a - BLACK, mean_b - BLACK
    luminance = (2 * light_a * light_b + c1) / (light_a**2 + light_b**2 + c1)
    return Similarity(jnp.mean(luminance * contrast, axis=(1, 2)), jnp.mean(contrast, axis=(1, 2)))


def _edge_distance(a: Float[Array, "B h w C"], b: Float[Array, "B h w C"]) -> Float[Array, " B"]:
    """1 - the similarity of gradient magnitudes, a mean over positions and channels."""
    a, b = _gradient_magnitude(a), _gradient_magnitude(b)
    return jnp.mean((a - b) ** 2 / (a**2 + b**2 + EDGE_STABILITY), axis=(1, 2, 3))


def _gradient_magnitude(x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C"]:
    """Length of the gradient by Prewitt's operator, per pair of pixels, where it fits."""
    down = (x[:, :-2] + x[:, 1:-1] + x[:, 2:]) / 3
    right = (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) / 3
    horizontal = down[:, :, 2:] - down[:, :, :-2]
    vertical = right[:, 2:] - right[:, :-2]
    return jnp.sqrt(horizontal**2 + vertical**2 + EDGE_FLOOR)


def _blur(x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C"]:
    """Filter with the window, a product of two, as shifted multiply-adds: exact float32 on every device."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    taps = np.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    taps = (taps / taps.sum()).tolist()
    height, width = x.shape[1] - WINDOW + 1, x.shape[2] - WINDOW + 1
    x = functools.reduce(jnp.add, (tap * x[:, i : i + height] for i, tap in enumerate(taps)))
    return functools.reduce(jnp.add, (tap * x[:, :, i : i + width] for i, tap in enumerate(taps)))
