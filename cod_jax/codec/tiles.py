"""Pictures computed in tiles of few sizes, which gives what the whole picture gives.

A network without attention sees only so many cells around each, its reach. So a tile computes the same as the whole
picture, but for the cells within that reach of its edges. Tiles overlap by twice the reach, and only the rest is taken.
The outer ones end where the picture ends, so that the network pads there what it pads for the whole. What differs is
rounding, as between any two compiled programs.

No program is compiled for the size of the picture, and memory does not grow with it.
"""

import collections
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Sides of tiles, in cells. More would waste less at their edges and compile more often.
SIDES = (1, 2, 4, 8, 16, 24, 32, 64)
# More than 4 megapixels, in cells of 16x16 pixels, are never computed at once.
MAX_WHOLE_CELLS = 2**14
# Tiles take up to twice the time of the whole, and compiling as much as ten or twenty pictures.
WHOLE_AFTER = 8


class Span(NamedTuple):
    """A tile along one side of a picture, in cells.

    Attributes:
        start: Where the tile starts.
        first: The first cell that is taken of it.
        end: The cell after the last one that is taken of it.
    """

    start: int
    first: int
    end: int


def spans(cells: int, reach: int) -> tuple[int, list[Span]]:
    """Return the side of the tiles that cover a side of a picture with the fewest cells, and the tiles.

    Args:
        cells: Cells of the side.
        reach: Cells that the network sees in each direction.
    """
    counts = {
        side: 1 if side == cells else -(-(cells - 2 * reach) // (side - 2 * reach))
        for side in SIDES
        if side == cells or 2 * reach < side < cells
    }
    side = min(counts, key=lambda side: (counts[side] * side, -side), default=cells)
    count = counts.get(side, 1)
    starts = [min(number * (side - 2 * reach), cells - side) for number in range(count)]
    ends = [*(start + side - reach for start in starts[:-1]), cells]
    return side, [Span(*span) for span in zip(starts, [0, *ends[:-1]], ends, strict=True)]


def in_tiles(
    function: Callable[[np.ndarray], np.ndarray], given: np.ndarray, *, reach: int, of_input: int, of_output: int
) -> np.ndarray:
    """Call a function of pictures, or of their symbols, with their tiles, and put the results together.

    Args:
        function: Maps arrays [B, rows of_input, columns of_input, ...] to [B, rows of_output, columns of_output, ...].
        given: Its argument for the whole pictures.
        reach: Cells around each cell of the output that it depends on.
        of_input: Rows and columns of the argument in a cell.
        of_output: Rows and columns of the result in a cell.
    """
    rows, columns = given.shape[1] // of_input, given.shape[2] // of_input
    (height, vertical), (width, horizontal) = spans(rows, reach), spans(columns, reach)
    result = np.empty(0)
    for down in vertical:
        for across in horizontal:
            tile = given[:, _part(down.start, height, of_input), _part(across.start, width, of_input)]
            computed = function(np.ascontiguousarray(tile))
            if not result.size:
                whole = (len(given), rows * of_output, columns * of_output, *computed.shape[3:])
                result = np.empty(whole, computed.dtype)
            kept = computed[:, _taken(down, of_output), _taken(across, of_output)]
            result[:, _of(down, of_output), _of(across, of_output)] = kept
    return result


def _part(start: int, cells: int, of_cell: int) -> slice:
    return slice(start * of_cell, (start + cells) * of_cell)


def _of(span: Span, of_cell: int) -> slice:
    return slice(span.first * of_cell, span.end * of_cell)


def _taken(span: Span, of_cell: int) -> slice:
    return slice((span.first - span.start) * of_cell, (span.end - span.start) * of_cell)


class Sizes:
    """Says which pictures are computed whole, by a program for their size: the first size, and those that come often.

    So a command for one picture, or for many of one size, takes the fastest program, and a folder of pictures of many
    sizes hardly compiles.
    """

    def __init__(self) -> None:
        self._seen: collections.Counter[tuple[int, int]] = collections.Counter()

    def is_whole(self, number: int, rows: int, columns: int) -> bool:
        """Return whether so many pictures of so many cells are computed whole, and count them."""
        if number * rows * columns > MAX_WHOLE_CELLS:
            return False
        self._seen[rows, columns] += number
        return (rows, columns) == next(iter(self._seen)) or self._seen[rows, columns] > WHOLE_AFTER
