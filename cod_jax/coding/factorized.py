"""Symbols of several channels, each with a table of how probable its values are (mode "factorized").

A table covers the usual values of a channel. Its last entry is an escape, which stands for all others: how far such a
value lies outside follows in an Elias gamma code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.coding.prior import tables_fingerprint
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder
from cod_jax.coding.symbols import LARGEST_SYMBOL
from cod_jax.errors import UserError

# A symbol is at most 2^16 outside a table, on either side.
_MAX_ESCAPE_BITS = 18
_EVEN = TOTAL // 2


class ChannelTables(NamedTuple):
    """The tables of all channels.

    Channel c codes the symbol `offsets[c] + i`, for i from 0 to `lengths[c] - 2`, with the probability `counts[c, i]`
    out of 2^16. Entry `lengths[c] - 1` is the escape. Every entry up to there is at least 1 and they sum to 2^16.

    Attributes:
        offsets: Smallest symbol of each table [C].
        lengths: Entries of each table, the escape among them, at least 2 [C].
        counts: Frequencies [C, L].
    """

    offsets: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class FactorizedPrior:
    """The tables of a model with a factorized bottleneck.

    Attributes:
        levels: Those of each quality level, the best last; all of the same channels.
    """

    levels: tuple[ChannelTables, ...]

    @property
    def num_channels(self) -> int:
        """Symbols of a grid position."""
        return len(self.levels[0].offsets)

    def to_arrays(self) -> dict[str, npt.NDArray[np.int32]]:
        """Return offsets and lengths [levels, C] and counts [levels, C, L] by name; `from_arrays` undoes it."""
        longest = max(tables.counts.shape[1] for tables in self.levels)
        return {
            "offsets": np.stack([tables.offsets for tables in self.levels]),
            "lengths": np.stack([tables.lengths for tables in self.levels]),
            "counts": np.stack(
                [np.pad(tables.counts, ((0, 0), (0, longest - tables.counts.shape[1]))) for tables in self.levels]
            ),
        }

    def fingerprint(self) -> str:
        """Name the prior by its content; see `prior.tables_fingerprint`."""
        return tables_fingerprint(self.to_arrays())


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> FactorizedPrior:
    """Make a prior of tables from a stranger.

    Raises:
        UserError: Tables are missing, unknown, of a wrong type or shape, or hold numbers that cannot be coded with.
    """
    num_axes = {"offsets": 2, "lengths": 2, "counts": 3}
    if {name: array.ndim for name, array in arrays.items()} != num_axes:
        raise UserError("the tables are not the offsets, lengths and counts of levels and channels")
    stacked = [arrays[name] for name in num_axes]
    if any(array.dtype != np.int32 or 0 in array.shape for array in stacked) or len({len(a) for a in stacked}) > 1:
        raise UserError("the tables are empty, not int32, or not of the same levels")
    levels = tuple(ChannelTables(*tables) for tables in zip(*stacked, strict=True))
    for tables in levels:
        check_tables(tables)
    return FactorizedPrior(levels)


def check_tables(tables: ChannelTables) -> None:
    """Refuse tables from a stranger that cannot be coded with.

    Raises:
        UserError: Shapes do not go together, a table is empty or has no escape, or counts are not positive numbers that
            sum to 2^16.
    """
    offsets, lengths, counts = tables
    if offsets.ndim != 1 or lengths.shape != offsets.shape or counts.shape[:-1] != offsets.shape:
        raise UserError(
            f"tables of channels have shapes {offsets.shape}, {lengths.shape} and {counts.shape}; give [C], [C], [C, L]"
        )
    if any(abs(int(offset)) > LARGEST_SYMBOL for offset in offsets):
        raise UserError(f"a table of a channel begins outside +-{LARGEST_SYMBOL}")
    for channel, length in enumerate(lengths):
        entries = counts[channel, :length]
        if not 2 <= length <= counts.shape[-1] or entries.min() < 1 or int(entries.sum(dtype=np.int64)) != TOTAL:
            raise UserError(f"the counts of channel {channel} are not positive numbers that add up to {TOTAL}")


def encode_factorized(tables: ChannelTables, symbols: npt.NDArray[np.int32]) -> bytes:
    """Code symbols [h, w, C], channel after channel, the escapes of a channel after its entries.

    Raises:
        UserError: Another number of channels, or a symbol outside +-32767.
    """
    if symbols.shape[-1] != len(tables.offsets):
        raise UserError(f"symbols of {symbols.shape[-1]} channels need as many tables, not {len(tables.offsets)}")
    if not _in_range(symbols):
        raise UserError(f"a symbol is outside +-{LARGEST_SYMBOL}, which cannot be coded")
    encoder = RangeEncoder()
    for channel, (offset, length, counts) in enumerate(zip(*tables, strict=True)):
        entries = symbols[..., channel].reshape(-1) - offset
        escape = int(length) - 1
        outside = (entries < 0) | (entries >= escape)
        encoder.encode_symbols(np.where(outside, escape, entries), counts[:length])
        _encode_escapes(encoder, entries[outside], escape)
    return encoder.finish()


def decode_factorized(tables: ChannelTables, data: bytes, *, rows: int, columns: int) -> npt.NDArray[np.int32]:
    """Undo `encode_factorized`.

    Raises:
        UserError: Damaged data.
    """
    decoder = RangeDecoder(data)
    symbols = np.zeros((rows * columns, len(tables.offsets)), np.int32)
    for channel, (offset, length, counts) in enumerate(zip(*tables, strict=True)):
        escape = int(length) - 1
        entries = decoder.decode_symbols(rows * columns, counts[:length])
        outside = entries == escape
        entries[outside] = _decode_escapes(decoder, int(outside.sum()), escape)
        symbols[:, channel] = entries + offset
    if not _in_range(symbols):
        raise UserError("the coded symbols are damaged; get the file again")
    return symbols.reshape(rows, columns, -1)


def _in_range(symbols: npt.NDArray[np.int32]) -> bool:
    """Whether all symbols can be coded; nothing of their size is allocated."""
    return not symbols.size or -LARGEST_SYMBOL <= int(symbols.min()) <= int(symbols.max()) <= LARGEST_SYMBOL


def _encode_escapes(encoder: RangeEncoder, entries: npt.NDArray[np.int32], escape: int) -> None:
    """Code entries outside 0 to escape - 1: 1, 3, 5, ... count up from the escape, 2, 4, 6, ... down from -1."""
    numbers = np.where(entries < 0, -2 * entries, 2 * (entries - escape) + 1)
    extra_bits = np.array([int(number).bit_length() - 1 for number in numbers], np.int32)
    for num in range(_MAX_ESCAPE_BITS):
        open_ones = extra_bits[extra_bits >= num]
        _encode_even(encoder, (open_ones > num).astype(np.int32))
    for shift in range(_MAX_ESCAPE_BITS - 1, -1, -1):
        _encode_even(encoder, numbers[extra_bits > shift] >> shift & 1)


def _decode_escapes(decoder: RangeDecoder, num_escapes: int, escape: int) -> npt.NDArray[np.int32]:
    extra_bits = np.zeros(num_escapes, np.int32)
    for num in range(_MAX_ESCAPE_BITS):
        still_open = np.flatnonzero(extra_bits == num)
        extra_bits[still_open] += _decode_even(decoder, still_open.size)
    numbers = np.ones(num_escapes, np.int32)
    for shift in range(_MAX_ESCAPE_BITS - 1, -1, -1):
        longer = np.flatnonzero(extra_bits > shift)
        numbers[longer] = 2 * numbers[longer] + _decode_even(decoder, longer.size)
    return np.where(numbers % 2, escape + numbers // 2, -(numbers // 2))


def _encode_even(encoder: RangeEncoder, bits: npt.NDArray[np.int32]) -> None:
    encoder.encode_bits(bits, np.full(bits.size, _EVEN))


def _decode_even(decoder: RangeDecoder, num_bits: int) -> npt.NDArray[np.int32]:
    return decoder.decode_bits(np.full(num_bits, _EVEN))
