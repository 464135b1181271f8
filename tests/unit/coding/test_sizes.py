"""Grids of symbols, and limits on pictures."""

import pytest

from cod_jax.coding.sizes import ceil_grid, exceeds_limit
from cod_jax.coding.symbols import SymbolFormat


def test_the_grid_covers_the_picture():
    assert ceil_grid(height=33, width=32, pitch=32) == (2, 1)


@pytest.mark.parametrize(
    ("height", "width", "max_pixels", "exceeds"),
    [
        (1, 2**20, 2**24, False),
        (4095, 4097, 2**24, False),
        (3, 7, 21, False),
        (3, 7, 20, True),
        # A picture of one row is computed in cells of 32 rows.
        (1, 2**24, 2**24, True),
    ],
)
def test_pictures_and_what_is_computed_for_them_are_limited(height: int, width: int, max_pixels: int, exceeds: bool):
    assert exceeds_limit(height=height, width=width, pitch=32, max_pixels=max_pixels) == exceeds


@pytest.mark.parametrize(
    ("symbols", "bits"),
    [
        (SymbolFormat(1, 0, 15), 4),
        (SymbolFormat(1, 0, 1), 1),
        (SymbolFormat(1, 0, 2**16 - 1), 16),
        (SymbolFormat(1, 0, 0), None),
        (SymbolFormat(1, 0, 2**17 - 1), None),
        (SymbolFormat(1, 0, 14), None),
        (SymbolFormat(1, 1, 16), None),
        (SymbolFormat(2, 0, 15), None),
        (SymbolFormat(1, 0, 15, num_levels=2), None),
    ],
)
def test_a_code_of_fixed_length_is_for_one_channel_and_level(symbols: SymbolFormat, bits: int | None):
    assert symbols.bits == bits
