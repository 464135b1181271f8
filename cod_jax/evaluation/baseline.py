"""What a trivial coder of the same rate would show: flat cells in a few colours.

Each symbol of a codec with a pitch of P pixels and 2^b code vectors stands for a cell of P x P pixels. The plainest
use of such a symbol is one of 2^b colours, chosen once on the training pictures.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from cod_jax.errors import UserError

NUM_ITERATIONS = 30


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
        UserError: No picture, or a pitch or number of colours below 1.
    """
    if not images_uint8:
        raise UserError("no pictures to find colours in; give at least one")
    if pitch < 1 or num_colours < 1:
        raise UserError(f"pitch is {pitch} and num_colours {num_colours}; both must be at least 1")
    cells = np.concatenate([cell_means(image, pitch).reshape(-1, 3) for image in images_uint8])
    colours = _spread_colours(cells, num_colours, np.random.default_rng(seed))
    for _ in range(NUM_ITERATIONS):
        nearest = _nearest(cells, colours)
        counts = np.bincount(nearest, minlength=len(colours))
        sums = np.stack([np.bincount(nearest, cells[:, c], minlength=len(colours)) for c in range(3)], axis=1)
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], colours).astype(np.float32)
        if np.array_equal(moved, colours):
            break
        colours = moved
    return colours


def paint_colours(
    image_uint8: UInt8[np.ndarray, "H W 3"], colours: Float32[np.ndarray, "K 3"], pitch: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture with each cell painted in the colour nearest to its mean."""
    means = cell_means(image_uint8, pitch)
    cells = colours[_nearest(means.reshape(-1, 3), colours)].reshape(means.shape)
    height, width = image_uint8.shape[:2]
    painted = cells.repeat(pitch, axis=0).repeat(pitch, axis=1)[:height, :width]
    return np.floor(painted + 0.5).astype(np.uint8)


def paint_mean(image_uint8: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture painted in its mean colour."""
    mean = np.floor(image_uint8.mean(axis=(0, 1)) + 0.5).astype(np.uint8)
    return np.broadcast_to(mean, image_uint8.shape).copy()


def _nearest(cells: Float32[np.ndarray, "N 3"], colours: Float32[np.ndarray, "K 3"]) -> np.ndarray:
    """Return for each cell the index of the nearest colour, [N]."""
    distances = (colours**2).sum(axis=1)[None, :] - 2 * cells @ colours.T
    return distances.argmin(axis=1)


def _spread_colours(
    cells: Float32[np.ndarray, "N 3"], num_colours: int, rng: np.random.Generator
) -> Float32[np.ndarray, "K 3"]:
    """Return starting colours that lie far apart (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = [cells[rng.integers(len(cells))]]
    distances = ((cells - chosen[0]) ** 2).sum(axis=1)
    while len(chosen) < num_colours and distances.max() > 0:
        chosen.append(cells[rng.choice(len(cells), p=distances / distances.sum(dtype=np.float64))])
        distances = np.minimum(distances, ((cells - chosen[-1]) ** 2).sum(axis=1))
    return np.stack(chosen)
