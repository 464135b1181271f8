"""Wasserstein distortion of pictures, on fixed features that need no weights.

Qiu, Wagner, Ballé and Theis 2023, "Wasserstein Distortion: Unifying Fidelity and Realism" (arXiv 2310.03629), compare
what is seen around a place by the distributions of features in a window there. Texture that is replaced by another
sample of the same texture costs little, and texture that is smoothed away costs much; a squared error says the
opposite.

Features are the colours and the responses of a steerable pyramid: second derivatives of a Gaussian in four directions
at four scales (Freeman and Adelson 1991, table III). Distributions are compared as if they were Gaussian and features
independent, as in the paper's equation 8: by means and standard deviations.
"""

import functools
import math
import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError

Plane = npt.NDArray[np.float32]
NUM_SCALES, NUM_DIRECTIONS, NUM_LEVELS = 4, 4, 4
# Luminance and two differences of colours (Rec. 601), of values from 0 to 255.
_COLOURS = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32)
_SMALL, _LARGE = (1 / 4, 2 / 4, 1 / 4), (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_SPACING = 0.67


Statistics = list[tuple[Plane, Plane]]
"""Means and standard deviations at every scale."""


def wasserstein_distortion(
    original: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8], *, num_levels: int = NUM_LEVELS
) -> float:
    """Compute the Wasserstein distortion of a picture.

    It is the mean over places of the sum over features of (m - m')^2 + (s - s')^2, where m and s are mean and standard
    deviation of a feature in a window around the place, of values from 0 to 255. The window is that of `num_levels`
    binomial filters of 3 pixels, each at half the resolution of the one before: it has a standard deviation of
    sqrt((4^num_levels - 1) / 6) pixels, 6.5 for 4 levels. Features of coarser scales have fewer levels, so that all
    windows have about the same size in the picture.

    Args:
        original: The picture [H, W, 3].
        decoded: What is compared with it, of the same shape.
        num_levels: Size of the window; 0 compares the features themselves, which is a squared error.

    Returns:
        A value from 0 for equal pictures, in squared 8-bit values; lower is better.

    Raises:
        UserError: The shapes differ, the pictures are not uint8, or `num_levels` is negative.
    """
    if num_levels < 0:
        raise UserError(f"expected num_levels to be at least 0, got {num_levels}")
    if original.shape != decoded.shape:
        raise UserError(f"expected two pictures of one shape [H, W, 3], got {original.shape} and {decoded.shape}")
    return distance(*(window_statistics(picture, num_levels=num_levels) for picture in (original, decoded)))


def window_statistics(picture: npt.NDArray[np.uint8], *, num_levels: int = NUM_LEVELS) -> Statistics:
    """Return means and standard deviations [channels, h, w] of the features of every scale.

    Args:
        picture: The picture [H, W, 3].
        num_levels: Size of the window, see `wasserstein_distortion`.

    Raises:
        UserError: The array has another shape or type.
    """
    if picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape or picture.dtype != np.uint8:
        raise UserError(f"expected a picture uint8 [H, W, 3], got {picture.dtype} {picture.shape}")
    return [_statistics(planes, num_levels - scale) for scale, planes in enumerate(_features(picture))]


def distance(a: Statistics, b: Statistics) -> float:
    """Return the Wasserstein distortion from the statistics of two pictures of one size."""
    pairs = [pair for of_scale in zip(a, b, strict=True) for pair in zip(*of_scale, strict=True)]
    return sum(float(np.mean(np.sum((x - y) ** 2, axis=0), dtype=np.float64)) for x, y in pairs)


def _features(picture: npt.NDArray[np.uint8]) -> list[Plane]:
    """Return the features of every scale, [channels, h, w]; the finest has the colours too."""
    colours = np.moveaxis(picture.astype(np.float32) @ _COLOURS.T, -1, 0)
    luminance, features = colours[:1], []
    for scale in range(NUM_SCALES):
        directions = _directions(luminance)
        features.append(directions if scale else np.concatenate([colours, directions]))
        luminance = _filtered(luminance, _LARGE, _LARGE, step=2)
    return features


def _directions(plane: Plane) -> Plane:
    """Return the responses [directions, h, w] of steered second derivatives to a plane [1, h, w]."""
    x = _SPACING * np.arange(-4, 5)
    bell = np.exp(-(x**2))
    second, first = (2 * x**2 - 1) * bell, x * bell
    second = second - second.mean()  # sampled at few places, it would see brightness
    across, both, along = (
        _filtered(plane, rows, columns) for rows, columns in ((bell, second), (2 * first, first), (second, bell))
    )
    angles = [math.pi * index / NUM_DIRECTIONS for index in range(NUM_DIRECTIONS)]
    steered = [
        math.cos(angle) ** 2 * across - math.sin(2 * angle) * both + math.sin(angle) ** 2 * along for angle in angles
    ]
    # White noise keeps its variance, as in the plane itself.
    return (np.concatenate(steered) / np.linalg.norm(np.outer(bell, second))).astype(np.float32)


def _statistics(features: Plane, num_levels: int) -> tuple[Plane, Plane]:
    """Return means and standard deviations in windows around the places of a grid, which gets coarser with them."""
    mean, square = features, features**2
    for level in range(num_levels):
        step = 2 if level < num_levels - 1 else 1
        mean, square = (_filtered(planes, _SMALL, _SMALL, step=step) for planes in (mean, square))
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _filtered(
    planes: Plane,
    rows: Sequence[float] | npt.NDArray[np.floating],
    columns: Sequence[float] | npt.NDArray[np.floating],
    *,
    step: int = 1,
) -> Plane:
    """Filter planes [channels, h, w] down their rows and along their columns, and keep every `step`-th place.

    What is outside repeats the border.
    """
    for axis, taps in ((1, rows), (2, columns)):
        half, length = len(taps) // 2, planes.shape[axis]
        padding = [(0, 0)] * 3
        padding[axis] = (half, half)
        padded, index = np.pad(planes, padding, mode="edge"), (slice(None),) * axis
        weighted = (
            tap * padded[(*index, slice(start, start + length, step))]
            for start, tap in enumerate(np.asarray(taps, np.float32).tolist())
        )
        planes = functools.reduce(operator.add, weighted)
    return planes
