"""The trivial coder of the same rate: flat cells in a few colours.

Each symbol of a codec with a pitch of P pixels and 2^b code vectors stands for a cell of P x P pixels. The plainest
use of such a symbol is one of 2^b colours, chosen once on the training pictures.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from scipy.cluster import vq

from cod_jax.errors import UserError


def cell_means(image_uint8: UInt8[np.ndarray, "H W 3"], pitch: int) -> Float32[np.ndarray, "h w 3"]:
    """Return the mean colour of each cell, [ceil(H / pitch), ceil(W / pitch), 3] in [0, 255].

    Cells at the bottom and right edge that reach beyond the picture count the pixels inside it.
    """
    sums = image_uint8.astype(np.float64)
    for axis in (0, 1):
        starts = np.arange(0, image_uint8.shape[axis], pitch)
        sums = np.add.reduceat(sums, starts, axis=axis)
        sizes = np.diff(np.append(starts, image_uint8.shape[axis]))
        sums = sums / np.expand_dims(sizes, tuple(i for i in range(3) if i != axis))
    return sums.astype(np.float32)


def fit_colours(
    images_uint8: Sequence[UInt8[np.ndarray, "_ _ 3"]], pitch: int, num_colours: int, seed: int = 0
) -> Float32[np.ndarray, "K 3"]:
    """Return the colours that paint the cells of some pictures best, by k-means.

    Args:
        images_uint8: Pictures of any size.
        pitch: Pixels per side of a cell.
        num_colours: Colours to find; fewer come back when the pictures have fewer different cells.
        seed: Seed of the starting colours.

    Returns:
        Colours [K, 3] in [0, 255].

    Raises:
        UserError: There is no picture, or the pitch or the number of colours is below 1.
    """
    if not images_uint8:
        raise UserError("expected at least one picture to find colours in, got none")
    if pitch < 1 or num_colours < 1:
        raise UserError(f"expected a pitch and a number of colours of at least 1, got {pitch} and {num_colours}")
    cells = np.concatenate([cell_means(image, pitch).reshape(-1, 3) for image in images_uint8])
    different = np.unique(cells, axis=0)
    if len(different) <= num_colours:
        return different
    # The best of several runs, each from cells chosen at random.
    colours, _ = vq.kmeans(cells, num_colours, rng=np.random.default_rng(seed))
    return colours


def paint_colours(
    image_uint8: UInt8[np.ndarray, "H W 3"], colours: Float32[np.ndarray, "K 3"], pitch: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture with each cell painted in the colour nearest to its mean."""
    means = cell_means(image_uint8, pitch)
    nearest, _ = vq.vq(means.reshape(-1, 3), colours)
    cells = colours[nearest].reshape(means.shape)
    height, width = image_uint8.shape[:2]
    painted = cells.repeat(pitch, axis=0).repeat(pitch, axis=1)[:height, :width]
    return np.floor(painted + 0.5).astype(np.uint8)


def paint_mean(image_uint8: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture painted in its mean colour."""
    mean = np.floor(image_uint8.mean(axis=(0, 1)) + 0.5).astype(np.uint8)
    return np.broadcast_to(mean, image_uint8.shape).copy()
