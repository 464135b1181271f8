"""Choose a quality level for each picture of a set, so that their files together keep within a number of bytes.

The least squared error over the set for its bytes lies on the lower convex hull of every picture's levels (Shoham and
Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers"): with one price for a byte, each picture
takes the level of which error plus price times bytes is least. A lower price takes the next edge of a hull, the
steepest of all first. What is left of the bytes then goes to whatever still fits.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError


class Trial(NamedTuple):
    """The file of a picture at one quality.

    Attributes:
        quality: From 1.
        data: The content of the file.
        squared_error: What is lost: the sum over all pixels and channels of the squared differences of 8-bit values.
    """

    quality: int
    data: bytes
    squared_error: int


def allocate(sizes: Sequence[Sequence[int]], errors: Sequence[Sequence[int | float]], total_bytes: int) -> list[int]:
    """Return the level of each picture, such that the sum of errors is small and that of bytes within a limit.

    The sum of errors exceeds the least possible one by at most what a single edge of a hull is worth, the first for
    which the bytes do not suffice. Equal input gives equal levels.

    Args:
        sizes: Bytes of each picture's file at each level, [N, L], from 1.
        errors: What is added up and made small, [N, L]; for the PSNR of the pooled error the squared error summed over
            the picture's pixels.
        total_bytes: Bytes that all files together may have.

    Returns:
        A level from 0 for each of the N pictures.

    Raises:
        UserError: Even the smallest files are too long together; the message says how long they are.
    """
    if not sizes:
        return []
    num_bytes, error = np.asarray(sizes, np.int64), np.asarray(errors, np.float64)
    smallest = int(num_bytes.min(axis=1).sum())
    if smallest > total_bytes:
        raise UserError(
            f"expected at least {smallest} bytes for {counted(len(num_bytes))}, which the smallest files take, got "
            f"{total_bytes}; allow more, or leave out pictures"
        )
    hulls = [list(_hull(*pair)) for pair in zip(num_bytes, error, strict=True)]
    levels = np.array([hull[0] for hull in hulls])
    left = total_bytes - int(_at(num_bytes, levels).sum())
    edges = [(picture, *edge) for picture, hull in enumerate(hulls) for edge in itertools.pairwise(hull)]

    def slope(edge: tuple[int, int, int]) -> float:
        picture, low, high = edge
        return (error[picture, high] - error[picture, low]) / (num_bytes[picture, high] - num_bytes[picture, low])

    # The edges of one picture come in their order, because a hull becomes flatter from one to the next.
    for picture, _, high in sorted(edges, key=slope):
        needed = int(num_bytes[picture, high] - num_bytes[picture, levels[picture]])
        if needed > left:
            break
        # Rounding may exchange two edges of one line.
        if needed > 0:
            levels[picture], left = high, left - needed
    return _fill(num_bytes, error, levels, left).tolist()


def trial(quality: int, data: bytes, original: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8]) -> Trial:
    """Return a file of a picture [H, W, 3] with the squared error of what it decodes to."""
    difference = original.astype(np.int32) - decoded
    return Trial(quality, data, int(np.square(difference).sum(dtype=np.int64)))


def within_total(trials: Sequence[Sequence[Trial]], total_bytes: int) -> list[Trial]:
    """Choose one file of each picture, see `allocate`: the squared error over all pixels is made small.

    Args:
        trials: The files of each picture at every quality.
        total_bytes: Bytes that all files together may have.

    Raises:
        UserError: Even the smallest files are too long together.
    """
    sizes = [[len(one.data) for one in files] for files in trials]
    errors = [[one.squared_error for one in files] for files in trials]
    levels = allocate(sizes, errors, total_bytes)
    return [files[level] for files, level in zip(trials, levels, strict=True)]


def counted(num_pictures: int) -> str:
    """Return a number of pictures in words for messages."""
    return f"{num_pictures} picture{'' if num_pictures == 1 else 's'}"


def _hull(num_bytes: npt.NDArray[np.int64], error: npt.NDArray[np.float64]) -> Iterator[int]:
    """Yield the levels on the lower convex hull of a picture's levels, from the fewest bytes to the least error."""
    # The smallest file; of several, the one with the least error.
    level = int(np.lexsort((error, num_bytes))[0])
    while True:
        yield level
        better = np.flatnonzero((num_bytes > num_bytes[level]) & (error < error[level]))
        if not len(better):
            return
        slopes = (error[better] - error[level]) / (num_bytes[better] - num_bytes[level])
        # Of several on one line the nearest, so that no edge is longer than it has to be.
        level = int(better[np.lexsort((num_bytes[better], slopes))[0]])


def _fill(
    num_bytes: npt.NDArray[np.int64], error: npt.NDArray[np.float64], levels: npt.NDArray[np.int64], left: int
) -> npt.NDArray[np.int64]:
    """Spend the bytes that are left: again and again on the change that gains most of those that fit."""
    levels = levels.copy()
    while True:
        more = num_bytes - _at(num_bytes, levels)[:, None]
        gain = np.where(more <= left, _at(error, levels)[:, None] - error, 0.0)
        picture, level = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[picture, level] > 0:
            return levels
        left -= int(more[picture, level])
        levels[picture] = level


def _at(table: npt.NDArray[Any], levels: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the value of each picture at its level."""
    return np.take_along_axis(table, levels[:, None], axis=1)[:, 0]
