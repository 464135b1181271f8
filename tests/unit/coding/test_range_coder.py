"""The range coder: nothing is lost, and its end costs less than a byte."""

import contextlib

import numpy as np
import pytest

from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder


def _information(bits: np.ndarray, probabilities: np.ndarray) -> float:
    """Bytes that the bits are worth."""
    return -np.log2(np.where(bits, probabilities, TOTAL - probabilities) / TOTAL).sum() / 8


@pytest.mark.parametrize("style", ["any", "even", "nearly_sure", "all_zeros", "all_ones"])
def test_bits_come_back_for_less_than_a_byte_more_than_they_are_worth(style: str):
    generator = np.random.default_rng(0)
    for _ in range(300):
        num = int(generator.integers(0, 400))
        probabilities = np.full(num, TOTAL // 2)
        if style != "even":
            probabilities = generator.integers(1, TOTAL, num)
        if style == "nearly_sure":
            probabilities = np.full(num, TOTAL - 1)
        bits = (generator.random(num) * TOTAL < probabilities).astype(np.int32)
        if style in ("all_zeros", "all_ones"):
            bits[:] = style == "all_ones"
        encoder = RangeEncoder()
        encoder.encode_bits(bits, probabilities)
        data = encoder.finish()
        np.testing.assert_array_equal(RangeDecoder(data).decode_bits(probabilities), bits)
        assert len(data) < _information(bits, probabilities) + 1.01
        assert not data.endswith(b"\0")


def test_symbols_and_bits_mix():
    generator = np.random.default_rng(1)
    encoder, calls = RangeEncoder(), []
    for size in (1, 2, 16, 300, 1, 65536):
        counts = generator.multinomial(TOTAL - size, np.full(size, 1 / size)) + 1
        symbols = generator.choice(size, 50, p=counts / TOTAL).astype(np.int32)
        probabilities = generator.integers(1, TOTAL, 7)
        bits = generator.integers(0, 2, 7)
        encoder.encode_symbols(symbols, counts)
        encoder.encode_bits(bits, probabilities)
        calls.append((counts, symbols, probabilities, bits))
    data = encoder.finish()
    decoder = RangeDecoder(data)
    for counts, symbols, probabilities, bits in calls:
        np.testing.assert_array_equal(decoder.decode_symbols(50, counts), symbols)
        np.testing.assert_array_equal(decoder.decode_bits(probabilities), bits)


def test_the_rarest_symbols_come_back():
    counts = np.array([1, TOTAL - 2, 1])
    symbols = np.array([0, 2, 0, 1, 2, 2, 0], np.int32)
    encoder = RangeEncoder()
    encoder.encode_symbols(symbols, counts)
    data = encoder.finish()
    assert len(data) == 6 * 2
    np.testing.assert_array_equal(RangeDecoder(data).decode_symbols(7, counts), symbols)


def test_nothing_is_no_bytes():
    encoder = RangeEncoder()
    encoder.encode_symbols(np.zeros(0, np.int32), np.array([1, TOTAL - 1]))
    encoder.encode_bits(np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert encoder.finish() == b""
    assert RangeDecoder(b"").decode_bits(np.zeros(0, np.int32)).size == 0


def test_data_that_nobody_wrote_is_decoded_or_refused():
    generator = np.random.default_rng(2)
    for _ in range(300):
        decoder = RangeDecoder(generator.bytes(int(generator.integers(0, 40))))
        with contextlib.suppress(ValueError):
            assert set(np.unique(decoder.decode_bits(np.full(500, TOTAL - 1)))) <= {0, 1}
    decoder = RangeDecoder(b"\xff" * 20)
    with pytest.raises(ValueError, match="damaged"):
        decoder.decode_bits(np.full(500, 1))
