"""Packing of symbols."""

import numpy as np
import pytest

from cod_jax.coding import bits
from tests.parity.cases import PORTABLE

FIXTURE_CASES = ["b4_n1", "b4_n5", "b4_n64", "b4_n333", "b8_n1", "b8_n5", "b8_n64", "b8_n333", "b3_n11", "b10_n7"]


@pytest.mark.parametrize("case", FIXTURE_CASES)
def test_packs_like_the_published_tools(case: str):
    with np.load(PORTABLE / "bit_packing.npz") as stored:
        indices, data = stored[f"{case}_indices"], stored[f"{case}_bytes"].tobytes()
    width = int(case[1:].split("_")[0])
    assert bits.pack(indices, width) == data
    np.testing.assert_array_equal(bits.unpack(data, indices.size, width), indices)


@pytest.mark.parametrize("width", range(1, 17))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_unpacking_undoes_packing(width: int, count: int):
    symbols = np.random.default_rng(width).integers(0, 2**width, count)
    data = bits.pack(symbols, width)
    assert len(data) == bits.packed_size(count, width)
    unpacked = bits.unpack(data, count, width)
    assert unpacked.dtype == np.int32
    np.testing.assert_array_equal(unpacked, symbols)


def test_the_first_symbol_is_in_the_high_bits():
    assert bits.pack([[0b101, 0b001]], 3) == bytes([0b10100100])


@pytest.mark.parametrize("symbols", [[16], [-1], [0, 15, 16]])
def test_symbols_that_do_not_fit_are_refused(symbols: list[int]):
    with pytest.raises(ValueError, match="expected symbols from 0 to 15 for 4 bits, got"):
        bits.pack(symbols, 4)


def test_symbols_must_be_integers():
    with pytest.raises(ValueError, match="float64"):
        bits.pack([0.5], 4)


@pytest.mark.parametrize("width", [0, 17, -1])
def test_widths_out_of_range_are_refused(width: int):
    with pytest.raises(ValueError, match="1 to 16"):
        bits.pack([0], width)
    with pytest.raises(ValueError, match="1 to 16"):
        bits.unpack(b"", 0, width)


@pytest.mark.parametrize("data", [b"", b"\x12", b"\x12\x30\x00"])
def test_data_of_another_length_is_refused(data: bytes):
    with pytest.raises(ValueError, match="expected 2 bytes for 3 symbols of 4 bits, got"):
        bits.unpack(data, 3, 4)


def test_bits_after_the_last_symbol_must_be_zero():
    with pytest.raises(ValueError, match="damaged"):
        bits.unpack(b"\x12\x31", 3, 4)
