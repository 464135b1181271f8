"""Symbols of several channels by frozen tables."""

import tracemalloc

import numpy as np
import pytest

from cod_jax.coding.entropy import ChannelTables, FactorizedModel, factorized
from cod_jax.coding.range_coder import TOTAL
from cod_jax.coding.symbols import LARGEST_SYMBOL
from tests.coding_fixtures import channel_tables


def _symbols(scale: float, shape: tuple[int, ...] = (7, 9, 5)) -> np.ndarray:
    values = np.rint(np.random.default_rng(1).standard_cauchy(shape) * scale)
    return np.clip(values, -LARGEST_SYMBOL, LARGEST_SYMBOL).astype(np.int32)


@pytest.mark.parametrize(
    "symbols",
    [
        _symbols(1),
        _symbols(1000),
        np.full((1, 1, 5), 32767, np.int32),
        np.full((3, 1, 5), -32767, np.int32),
        np.zeros((2, 2, 5), np.int32),
    ],
)
def test_any_symbols_come_back(symbols: np.ndarray):
    data = factorized.encode_channels(channel_tables(), symbols)
    rows, columns, _ = symbols.shape
    decoded = factorized.decode_channels(channel_tables(), data, rows=rows, columns=columns)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, symbols)


def test_the_size_is_what_the_tables_say():
    given = channel_tables()
    generator = np.random.default_rng(3)
    symbols = np.zeros((20, 30, 5), np.int32)
    bits = 0.0
    for channel, (offset, length, counts) in enumerate(zip(*given, strict=True)):
        shares = counts[: length - 1] / counts[: length - 1].sum()
        entries = generator.choice(length - 1, (20, 30), p=shares)
        symbols[..., channel] = entries + offset
        bits -= np.log2(counts[entries] / TOTAL).sum()
    assert abs(len(factorized.encode_channels(given, symbols)) - bits / 8) < 2
    assert FactorizedModel((given,)).estimated_bits(symbols, level=0) == pytest.approx(bits)


def test_an_escape_costs_its_entry_and_an_elias_gamma_code():
    # Entries 0 and the escape, which is even; the value 4 outside is number 9, of 3 + 4 bits.
    given = ChannelTables(
        np.array([0], np.int32), np.array([2], np.int32), np.array([[TOTAL // 2, TOTAL // 2]], np.int32)
    )
    symbols = np.full((10, 8, 1), 5, np.int32)
    assert len(factorized.encode_channels(given, symbols)) in (10 * (1 + 3 + 4), 10 * (1 + 3 + 4) + 1)
    assert FactorizedModel((given,)).estimated_bits(symbols, level=0) == 80 * (1 + 3 + 4)


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(ValueError, match="expected symbols of 5 channels, got 4"):
        factorized.encode_channels(channel_tables(), np.zeros((1, 1, 4), np.int32))
    with pytest.raises(ValueError, match=r"expected symbols within \+-32767, got"):
        factorized.encode_channels(channel_tables(), np.full((1, 1, 5), -32768, np.int32))
    with pytest.raises(ValueError, match=r"expected symbols within \+-32767, got"):
        factorized.encode_channels(channel_tables(), np.full((1, 1, 5), -(2**31), np.int32))
    with pytest.raises(ValueError, match=r"expected symbols within \+-32767, got"):
        factorized.encode_channels(channel_tables(), np.full((1, 1, 5), 32768, np.int32))


def test_many_channels_take_no_copies_of_all_symbols():
    symbols = np.zeros((32, 32, 50), np.int32)
    counts = np.tile(np.array([TOTAL - 1, 1], np.int32), (50, 1))
    certain = ChannelTables(np.zeros(50, np.int32), np.full(50, 2, np.int32), counts)
    tracemalloc.start()
    try:
        data = factorized.encode_channels(certain, symbols)
        assert tracemalloc.get_traced_memory()[1] < symbols.nbytes / 2
        tracemalloc.reset_peak()
        factorized.decode_channels(certain, data, rows=32, columns=32)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * symbols.nbytes
    finally:
        tracemalloc.stop()


def test_damaged_data_is_decoded_to_symbols_in_range_or_refused():
    generator = np.random.default_rng(4)
    num_refused = 0
    for _ in range(300):
        data = generator.bytes(int(generator.integers(0, 60)))
        try:
            decoded = factorized.decode_channels(channel_tables(), data, rows=5, columns=4)
        except ValueError:
            num_refused += 1
        else:
            assert decoded.shape == (5, 4, 5)
            assert np.abs(decoded).max() <= LARGEST_SYMBOL
    assert num_refused < 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"counts": channel_tables().counts * 2},
            "expected the counts of channel 0 to be positive numbers that add",
        ),
        ({"lengths": channel_tables().lengths - 1}, "counts of channel 0"),
        ({"lengths": channel_tables().lengths * 0}, "counts of channel 0"),
        ({"lengths": channel_tables().lengths[:2]}, r"expected tables of shapes .*, got \(5,\), \(2,\) and \(5, 30\)"),
        ({"counts": channel_tables().counts[:2]}, "expected tables of shapes"),
        ({"offsets": np.full(5, 2**20, np.int32)}, r"begins outside \+-32767"),
    ],
)
def test_tables_that_cannot_be_coded_with_are_refused(change: dict[str, np.ndarray], message: str):
    factorized.check_tables(channel_tables())
    with pytest.raises(ValueError, match=message):
        factorized.check_tables(channel_tables()._replace(**change))
