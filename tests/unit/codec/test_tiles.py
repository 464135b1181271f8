"""Pictures computed in tiles."""

import numpy as np
import pytest

from cod_jax.codec import tiles
from cod_jax.codec.tiles import Sizes, in_tiles, spans


def blurred(pictures: np.ndarray, times: int) -> np.ndarray:
    """Return pictures [B, h, w, C] after so many sums over 3x3 neighbours, padded at their borders by what is there."""
    height, width = pictures.shape[1:3]
    for _ in range(times):
        padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        shifted = [padded[:, i : i + height, j : j + width] * (3 * i + j + 1) for i in range(3) for j in range(3)]
        pictures = np.sum(shifted, axis=0)
    return pictures % 2**20


@pytest.mark.parametrize("size", [(37, 70), (16, 5), (1, 130)])
@pytest.mark.parametrize("reach", [0, 2, 5])
def test_tiles_give_what_the_whole_gives(size: tuple[int, int], reach: int):
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 100, (2, *size, 3))
    shapes = set()

    def function(given: np.ndarray) -> np.ndarray:
        shapes.add(given.shape[1:3])
        # One value of 2x2 each.
        return blurred(given[:, ::2, ::2] + given[:, 1::2, 1::2], reach).repeat(4, axis=1).repeat(4, axis=2)

    pictures = cells.repeat(2, axis=1).repeat(2, axis=2)
    expected = function(pictures)
    shapes.clear()
    result = in_tiles(function, pictures, reach=reach, of_input=2, of_output=4)
    np.testing.assert_array_equal(result, expected)
    assert len(shapes) == 1
    if reach and max(size) > 20:
        assert (in_tiles(function, pictures, reach=reach - 1, of_input=2, of_output=4) != expected).any()


@pytest.mark.parametrize("reach", [0, 2, 5])
def test_all_sides_are_covered_by_tiles_of_few_sides(reach: int):
    sides = set()
    for cells in range(1, 600):
        side, tiled = spans(cells, reach)
        sides.add(side)
        assert [span.first for span in tiled[1:]] == [span.end for span in tiled[:-1]]
        assert (tiled[0].first, tiled[-1].end) == (0, cells)
        for span in tiled:
            assert 0 <= span.start <= cells - side
            assert span.start + reach <= span.first or span.first == span.start == 0 or span.start == cells - side
            assert span.end <= span.start + side - reach or span.end == cells
    # Smaller pictures than tiles with a margin are computed whole.
    assert sides <= {*tiles.SIDES, *range(1, 16)}
    assert spans(64, reach) == (64, [(0, 0, 64)])


def test_the_first_size_and_frequent_ones_are_whole_and_large_ones_never():
    sizes = Sizes()
    assert not sizes.is_whole(1, 1000, 1000)
    assert sizes.is_whole(1, 32, 48)
    decided = [sizes.is_whole(1, 30, 40) for _ in range(tiles.WHOLE_AFTER + 2)]
    assert decided == [False] * tiles.WHOLE_AFTER + [True, True]
    assert sizes.is_whole(1, 32, 48)
    assert sizes.is_whole(2 * tiles.WHOLE_AFTER, 20, 20), "a list of equal pictures is many"
