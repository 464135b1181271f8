"""PSNR, SSIM and MS-SSIM of images, in float32 on JAX arrays and in float64 on NumPy arrays.

Losses, validation and evaluation all measure with these functions.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

# Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment".
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
WINDOW_SIGMA = 1.5
K1, K2 = 0.01, 0.03
BLACK = -0.5

AnyArray = Array | np.ndarray


class Similarity(NamedTuple):
    """SSIM [B, C] and its factor of contrast and structure [B, C], means over the positions of one scale; at most 1."""

    ssim: Float[AnyArray, "B C"]
    contrast: Float[AnyArray, "B C"]


def psnr_per_image(
    a: Shaped[AnyArray, "B H W C"],
    b: Shaped[AnyArray, "B H W C"],
    *,
    data_range: float = 255.0,
    limit: float = math.inf,
) -> Float[AnyArray, " B"]:
    """Return the peak signal-to-noise ratio of each pair of images, in dB.

    The value is 10 log10(data_range^2 / mean squared error), over all pixels and channels.

    Args:
        a: Images of any dtype.
        b: The images they are compared with.
        data_range: Difference between white and black: 255 for uint8, 1 for [0, 1].
        limit: Largest value to return. Without one, equal images give infinity.
    """
    namespace = _namespace(a)
    error = namespace.mean(((_as_float(a) - _as_float(b)) / data_range) ** 2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return -10 * namespace.log10(namespace.maximum(error, 10 ** (-limit / 10)))


def ms_ssim_per_image(a: Float[AnyArray, "B H W C"], b: Float[AnyArray, "B H W C"]) -> Float[AnyArray, " B"]:
    """Return the multi-scale structural similarity of each pair of images, the mean over the channels.

    Wang et al. 2003, equation 7: the product of the terms of all scales, raised to their weights. Negative terms count
    as zero, so the value is between 0 and 1.

    Args:
        a: Images in [-1, 1]. Images with a side below 161 pixels are compared at the scales that fit.
        b: The images they are compared with.
    """
    namespace = _namespace(a)
    weights = ms_ssim_weights(*a.shape[1:3])
    terms = ms_ssim_terms(similarities(a, b))
    powers = (_power(term, weight) for term, weight in zip(terms, weights, strict=True))
    return namespace.mean(functools.reduce(operator.mul, powers), axis=-1)


def _power(term: Any, weight: float) -> Any:
    """Return a term raised to its weight; one that is not positive gives 0, with a gradient of 0.

    The derivative of the power is infinite at 0, so what is not positive never reaches it.
    """
    namespace = _namespace(term)
    positive = term > 0
    return namespace.where(positive, namespace.where(positive, term, 1) ** weight, 0)


def num_ms_ssim_scales(height: int, width: int) -> int:
    """Count the scales at which the window of MS-SSIM fits into an image: 1 to 5."""
    shortest = min(height, width)
    return sum(scale == 0 or shortest > (WINDOW - 1) * 2**scale for scale in range(len(SCALE_WEIGHTS)))


def ms_ssim_weights(height: int, width: int) -> tuple[float, ...]:
    """Return the exponents of MS-SSIM at the scales that fit; they always have the sum of all five, which is 1.0001."""
    weights = SCALE_WEIGHTS[: num_ms_ssim_scales(height, width)]
    return tuple(weight * (sum(SCALE_WEIGHTS) / sum(weights)) for weight in weights)


def ms_ssim_terms(scale_similarities: Sequence[Similarity]) -> list[Float[AnyArray, "B C"]]:
    """List the factors of MS-SSIM before their exponents: contrast, and SSIM at the coarsest scale."""
    return [scale.contrast for scale in scale_similarities[:-1]] + [scale_similarities[-1].ssim]


def similarities(a: Float[AnyArray, "B H W C"], b: Float[AnyArray, "B H W C"]) -> list[Similarity]:
    """Compare images in [-1, 1] at every scale that fits, the finest first."""
    num_scales = num_ms_ssim_scales(*a.shape[1:3])
    return [similarity(x, y) for x, y in zip(scales(a, num_scales), scales(b, num_scales), strict=True)]


def scales(image: Float[AnyArray, "B H W C"], num_scales: int) -> list[Float[AnyArray, "B h w C"]]:
    """Return an image in [-1, 1] and its 2x2 means, those of the means, and so on, all in [-0.5, 0.5].

    An odd side gets a black pixel in front, which counts in the mean. The public implementation that others measure
    with does the same (pytorch-msssim, `avg_pool2d` with padding).
    """
    namespace = _namespace(image)
    # With grey at 0, the squares whose differences give the variances are smallest.
    levels = [_as_float(image) / 2]
    for _ in range(num_scales - 1):
        _, height, width, _ = levels[-1].shape
        padding = ((0, 0), (height % 2, 0), (width % 2, 0), (0, 0))
        x = namespace.pad(levels[-1], padding, constant_values=BLACK)
        batch, height, width, channels = x.shape
        levels.append(namespace.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4)))
    return levels


def similarity(a: Float[AnyArray, "B h w C"], b: Float[AnyArray, "B h w C"]) -> Similarity:
    """Compare images in [-0.5, 0.5] at one scale, at the positions where the Gaussian window fits.

    The window is cut to sides that are shorter than it.
    """
    namespace = _namespace(a)
    moments = _blur(namespace.concatenate([a, b, a * a, b * b, a * b], axis=-1))
    mean_a, mean_b, square_a, square_b, product = namespace.split(moments, 5, axis=-1)
    c1, c2 = K1**2, K2**2
    spread = (square_a - mean_a**2) + (square_b - mean_b**2)
    contrast = (2 * (product - mean_a * mean_b) + c2) / (spread + c2)
    light_a, light_b = mean_a - BLACK, mean_b - BLACK
    luminance = (2 * light_a * light_b + c1) / (light_a**2 + light_b**2 + c1)
    ssim = namespace.mean(luminance * contrast, axis=(1, 2))
    return Similarity(ssim, namespace.mean(contrast, axis=(1, 2)))


def _blur(x: Float[AnyArray, "B h w C"]) -> Float[AnyArray, "B h2 w2 C"]:
    """Filter with the window, a product of two, as shifted multiply-adds: exact float32 on every device."""
    for axis in (1, 2):
        size = min(WINDOW, x.shape[axis])
        offsets = np.arange(size) - (size - 1) / 2
        taps = np.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
        places = x.shape[axis] - size + 1
        index = (slice(None),) * axis
        shifted = [x[(*index, slice(start, start + places))] for start in range(size)]
        add = _add_on_host if isinstance(x, np.ndarray) else _add
        x = add((taps / taps.sum()).tolist(), shifted)
    return x


def _add(taps: Sequence[float], shifted: Sequence[Any]) -> Any:
    """Return the weighted sum of arrays."""
    return functools.reduce(operator.add, (tap * part for tap, part in zip(taps, shifted, strict=True)))


def _add_on_host(taps: Sequence[float], shifted: Sequence[Any]) -> Any:
    """Return the same with symmetric weights, in half the time: NumPy makes an array of every intermediate result."""
    total, pair = np.zeros_like(shifted[0]), np.empty_like(shifted[0])
    for start in range(len(taps) // 2):
        np.add(shifted[start], shifted[-1 - start], out=pair)
        pair *= taps[start]
        total += pair
    if len(taps) % 2:
        total += taps[len(taps) // 2] * shifted[len(taps) // 2]
    return total


def _namespace(x: AnyArray) -> Any:
    """Return the library whose functions take this array."""
    return np if isinstance(x, np.ndarray) else jnp


def _as_float(x: AnyArray) -> Any:
    """Return float64 on the host and float32 on devices."""
    return x.astype(np.float64 if isinstance(x, np.ndarray) else np.float32)
