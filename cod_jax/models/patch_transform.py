"""Karhunen-Loève transform of picture patches, with which compact models start."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cod_jax.models.denoiser import PATCH_SIZE

# Values of a patch: row-major pixels of three colours.
PATCH_VALUES = 3 * PATCH_SIZE**2
# Components vary by at least this much, in pixel values of [-1, 1]. Less is rounding.
SMALLEST_SCALE = 1e-3
_Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class PatchMoments:
    """Moments of the 16x16 patches of training pictures, with pixel values in [-1, 1].

    Attributes:
        mean: Mean of each value [768].
        covariance: Covariance of the values [768, 768].
    """

    mean: _Floats
    covariance: _Floats


def patch_moments(images_uint8: Iterable[npt.NDArray[np.uint8]]) -> PatchMoments:
    """Return the moments of pictures [H, W, 3], at least one, whose sides are multiples of 16.

    They are made of sums of integers, so they are the same on every machine. They count mirrored and turned pictures
    too, so that the transform prefers no direction by chance.
    """
    number, total, products = 0, np.zeros(PATCH_VALUES), np.zeros((PATCH_VALUES, PATCH_VALUES))
    for image in images_uint8:
        rows, columns = (side // PATCH_SIZE for side in image.shape[:2])
        patches = image.reshape(rows, PATCH_SIZE, columns, PATCH_SIZE, 3).swapaxes(1, 2)
        # float64 holds the sums of products of bytes exactly.
        values = patches.reshape(-1, PATCH_VALUES).astype(np.float64)
        number += len(values)
        total += values.sum(0)
        products += values.T @ values
    places = np.arange(PATCH_VALUES).reshape(PATCH_SIZE, PATCH_SIZE, 3)
    # Each step doubles the ways to turn and mirror a square, up to all eight.
    for turned in (places[:, ::-1], places[::-1], places.transpose(1, 0, 2)):
        order = turned.reshape(-1)
        number, total, products = 2 * number, total + total[order], products + products[np.ix_(order, order)]
    mean, scale = total / number, 2 / 255
    return PatchMoments(mean * scale - 1, (products / number - np.outer(mean, mean)) * scale**2)


@dataclasses.dataclass(frozen=True, eq=False)
class PatchTransform:
    """An orthonormal transform of patches.

    Attributes:
        mean: Mean of each value of a patch [768].
        basis: Components in columns [768, channels].
        scales: Standard deviation of each component [channels].
    """

    mean: _Floats
    basis: _Floats
    scales: _Floats


def transform(moments: PatchMoments, channels: int, latent_channels: int, pitch: int) -> PatchTransform:
    """Return the transform of patches with these moments.

    The first components are those of each pitch x pitch part of the patch, `latent_channels` for each, the strongest
    first; the rest are the strongest of what remains of the whole patch.

    Args:
        moments: Moments of patches.
        channels: Number of components, at most 768 and at least those of all parts.
        latent_channels: Number of components of each part.
        pitch: Side of a part in pixels, a divisor of 16.
    """
    pixels = np.arange(PATCH_VALUES).reshape(PATCH_SIZE, PATCH_SIZE, 3)
    per_side = PATCH_SIZE // pitch
    parts = pixels.reshape(per_side, pitch, per_side, pitch, 3).swapaxes(1, 2).reshape(per_side**2, -1)
    # One basis for all parts, from the mean of their covariances.
    covariance = np.mean([moments.covariance[np.ix_(part, part)] for part in parts], axis=0)
    of_part = _strongest(covariance, latent_channels)
    basis = np.zeros((PATCH_VALUES, len(parts) * latent_channels))
    for index, part in enumerate(parts):
        basis[part, index * latent_channels : (index + 1) * latent_channels] = of_part
    rest = channels - basis.shape[1]
    if rest:
        complement = np.eye(PATCH_VALUES) - basis @ basis.T
        # Pictures may leave components without variance; these still come before those that the basis has.
        covariance = moments.covariance + SMALLEST_SCALE**2 * np.eye(PATCH_VALUES)
        basis = np.concatenate([basis, _strongest(complement @ covariance @ complement, rest)], axis=1)
    variances = np.einsum("ij,ik,kj->j", basis, moments.covariance, basis, optimize=True)
    return PatchTransform(moments.mean, basis, np.maximum(np.sqrt(np.maximum(variances, 0.0)), SMALLEST_SCALE))


def _strongest(covariance: _Floats, number: int) -> _Floats:
    """Return the eigenvectors [N, number] of the largest eigenvalues, with a sign that no machine chooses."""
    vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :number]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], axis=0)
    return vectors * np.sign(largest)
