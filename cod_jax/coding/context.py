"""The order in which a grid of symbols is coded with a context prior, and what each symbol knows of its neighbours.

Symbols are coded from coarse to fine. First comes the one at (0, 0); then, for spacings s = ..., 8, 4, 2, the grid of
spacing s that is known is filled up to spacing s/2 in three batches: the middle of each square from its four corners,
then the middles of the horizontal and of the vertical edges, each from its four neighbours. All symbols of a batch are
coded with one call per bit, so that a picture takes a few hundred calls however large it is.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

NUM_NEIGHBOURS = 4
# Corners and edges, each at distances 1, 2, and 4 or more: batches of equal class share their tables.
NUM_DISTANCES = 3
NUM_CLASSES = 2 * NUM_DISTANCES


@dataclasses.dataclass(frozen=True)
class Batch:
    """Symbols that are coded together.

    Attributes:
        kind: Which tables they use, 0 to NUM_CLASSES - 1.
        place: Index arrays of the rows [r, 1] and the columns [1, c] of the grid.
        neighbours: Index arrays of rows and columns of their neighbours, on the grid with a border.
    """

    kind: int
    place: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    neighbours: tuple[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]], ...]


def with_border(grid: npt.NDArray[np.int32], nothing: int) -> npt.NDArray[np.int32]:
    """Add a row and a column, the last ones, of what stands for a neighbour outside the picture."""
    return np.pad(grid, ((0, 1), (0, 1)), constant_values=nothing)


def batches(rows: int, columns: int) -> Iterator[Batch]:
    """Yield the batches of a grid; together they are all its symbols, and neighbours are of batches before.

    Neighbours are in the order up, down, left, right; those of corners in the order up left, down right, up right, down
    left.
    """
    spacing = 1 << (max(rows, columns) - 1).bit_length()
    yield _batch(rows, columns, (0, 0), spacing, spacing)
    while spacing > 1:
        half = spacing // 2
        for start in ((half, half), (0, half), (half, 0)):
            if start[0] < rows and start[1] < columns:
                yield _batch(rows, columns, start, spacing, half)
        spacing = half


def _batch(rows: int, columns: int, start: tuple[int, int], spacing: int, distance: int) -> Batch:
    row, column = np.ogrid[start[0] : rows : spacing, start[1] : columns : spacing]
    # Index -1 is the border, as the number of rows or columns is.
    up, down = np.maximum(row - distance, -1), np.minimum(row + distance, rows)
    left, right = np.maximum(column - distance, -1), np.minimum(column + distance, columns)
    kind = min(distance.bit_length(), NUM_DISTANCES) - 1
    if start == (distance, distance):
        return Batch(kind, (row, column), ((up, left), (down, right), (up, right), (down, left)))
    neighbours = ((up, column), (down, column), (row, left), (row, right))
    return Batch(NUM_DISTANCES + kind, (row, column), neighbours)
