"""Symbols of a fixed number of bits, packed one after another."""

import numpy as np
import numpy.typing as npt

from cod_jax.coding.symbols import MAX_BITS
from cod_jax.errors import UserError


def packed_size(num_symbols: int, bits: int) -> int:
    """Return the bytes that `pack` makes of so many symbols."""
    return -(-num_symbols * bits // 8)


def pack(symbols: npt.ArrayLike, bits: int) -> bytes:
    """Pack symbols in C order, each most significant bit first; zero bits fill the last byte.

    Args:
        symbols: Integers in [0, 2^bits), any shape.
        bits: Bits of a symbol, 1 to 16.

    Raises:
        UserError: A symbol needs more bits or is negative, the symbols are not integers, or `bits` is out of range.
    """
    _check_bits(bits)
    flat = np.asarray(symbols).reshape(-1)
    if flat.size == 0:
        return b""
    if not np.issubdtype(flat.dtype, np.integer):
        raise UserError(f"expected symbols of an integer dtype, got {flat.dtype}")
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= 2**bits:
        raise UserError(f"expected symbols from 0 to {2**bits - 1} for {bits} bits, got {low} to {high}")
    # The last 2 bytes of a symbol, big endian, hold its bits in writing order; the first 16 - bits of them are unused.
    unpacked = np.unpackbits(flat.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    return np.packbits(unpacked[:, MAX_BITS - bits :]).tobytes()


def unpack(data: bytes, num_symbols: int, bits: int) -> npt.NDArray[np.int32]:
    """Undo `pack`.

    Args:
        data: Exactly `packed_size(num_symbols, bits)` bytes.
        num_symbols: How many symbols to read.
        bits: Bits of a symbol, 1 to 16.

    Returns:
        The symbols [num_symbols].

    Raises:
        UserError: The data is shorter or longer, or the bits that fill the last byte are not zero.
    """
    _check_bits(bits)
    expected = packed_size(num_symbols, bits)
    if len(data) != expected:
        raise UserError(f"expected {expected} bytes for {num_symbols} symbols of {bits} bits, got {len(data)}")
    unpacked = np.unpackbits(np.frombuffer(data, np.uint8))
    if unpacked[num_symbols * bits :].any():
        raise UserError("the bits after the last symbol are not zero; the data is damaged")
    padded = np.zeros((num_symbols, MAX_BITS), np.uint8)
    padded[:, MAX_BITS - bits :] = unpacked[: num_symbols * bits].reshape(num_symbols, bits)
    return np.packbits(padded, axis=1).view(">u2").reshape(num_symbols).astype(np.int32)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise UserError(f"expected 1 to {MAX_BITS} bits for a symbol, got {bits}")
