"""Grids of symbols, and limits on pictures."""

import numpy as np
import pytest

from cod_jax.coding.sizes import ceil_grid, checked_limit, exceeds_limit
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError


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


@pytest.mark.parametrize("limit", [0, -1, 2**27 + 1, float("nan"), 1e6, "1000", None])
def test_limits_that_mean_nothing_are_refused(limit):
    with pytest.raises(UserError, match=r"expected max_pixels to be a whole number from 1 to 134217728, got "):
        checked_limit(limit)


def test_limits_are_whole_numbers():
    assert [checked_limit(limit) for limit in (1, 2**27, np.int64(400))] == [1, 2**27, 400]
