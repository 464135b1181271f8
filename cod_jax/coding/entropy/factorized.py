"""Mode "factorized": symbols of several channels, each with a table of how probable its values are.

A table covers the usual values of a channel. Its last entry is an escape, which stands for all others: how far such a
value lies outside follows in an Elias gamma code. Each quality level has tables of its own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.coding.container import Mode
from cod_jax.coding.entropy.elias_gamma import bits_of_numbers, decode_numbers
from cod_jax.coding.entropy.model import EntropyModel, Tables, check_counts
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder, bit_costs, least_bytes
from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.errors import UserError

_NUM_AXES = {"offsets": 2, "lengths": 2, "counts": 3}


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


@dataclasses.dataclass(frozen=True, eq=False)
class FactorizedModel(EntropyModel):
    """Codes symbols channel after channel; where there are several quality levels, the first byte names the level.

    Attributes:
        levels: Tables of each quality level, the best last; all of the same channels.
    """

    mode: ClassVar[Mode] = "factorized"
    levels: tuple[ChannelTables, ...]

    @classmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "FactorizedModel | None":
        """Return the model of integers of several channels and levels; see `EntropyModel.from_tables`."""
        if not {"offsets", "lengths"} & set(tables):
            return None
        if {name: array.ndim for name, array in tables.items() if name in _NUM_AXES} != _NUM_AXES:
            raise UserError("expected the tables offsets and lengths [levels, C] and counts [levels, C, L]")
        stacked = [tables[name] for name in _NUM_AXES]
        if any(array.dtype != np.int32 or 0 in array.shape for array in stacked) or len({len(a) for a in stacked}) > 1:
            raise UserError("expected int32 tables of the same levels, at least one; they are damaged")
        given, expected = stacked[0].shape, (symbols.num_levels, symbols.num_channels)
        if given != expected:
            raise UserError(f"expected tables of (levels, channels) {expected} for the model's symbols, got {given}")
        levels = tuple(ChannelTables(*of_level) for of_level in zip(*stacked, strict=True))
        for of_level in levels:
            check_tables(of_level)
        return cls(levels)

    @classmethod
    def largest_tables(cls, symbols: SymbolFormat) -> dict[str, int]:
        """Return the sizes of tables with an entry for each symbol, and the escape."""
        num_tables = symbols.num_levels * symbols.num_channels
        return {"offsets": num_tables, "lengths": num_tables, "counts": num_tables * (symbols.size + 1)}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return offsets and lengths [levels, C] and counts [levels, C, L] by name."""
        return stack_tables(self.levels)

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Code symbols of the level; see `EntropyModel.encode`."""
        named = bytes([level]) if len(self.levels) > 1 else b""
        return named + encode_channels(self.levels[level], symbols)

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`."""
        level = named_level(data, len(self.levels))
        if len(self.levels) > 1:
            data = data[1:]
        return decode_channels(self.levels[level], data, rows=rows, columns=columns), level

    def symbol_bits(self, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float64]:
        """Return -log2 of the probability of each symbol; with an escape, of that and of what follows it."""
        costs = np.empty(symbols.shape)
        for channel, (offset, length, counts) in enumerate(zip(*self.levels[level], strict=True)):
            entries, outside = _entries(symbols[..., channel], offset, length)
            of_channel = -np.log2(counts[np.where(outside, length - 1, entries)] / TOTAL)
            escaped = np.flatnonzero(outside)
            for places, bits, probabilities in bits_of_numbers(_escape_numbers(entries[escaped], length - 1)):
                of_channel[escaped[places]] += bit_costs(bits, probabilities)
            costs[..., channel] = of_channel.reshape(costs.shape[:2])
        return costs

    def least_bytes(self, *, rows: int, columns: int) -> int:
        """Return the bytes of symbols that are all the likeliest of their channel, or fewer, at the cheapest level."""
        return min(least_bytes(rows * columns, tables.counts.max(axis=-1)) for tables in self.levels)


def named_level(payload: bytes, num_levels: int) -> int:
    """Return the quality level that a payload names, from 0.

    Args:
        payload: The payload of a file.
        num_levels: Quality levels of its model. With one only, files do not name it.

    Raises:
        UserError: The model does not have the level.
    """
    if num_levels == 1:
        return 0
    if not payload or payload[0] >= num_levels:
        raise UserError("the file names a quality level that its model does not have; it is damaged")
    return payload[0]


def stack_tables(levels: Sequence[ChannelTables]) -> dict[str, npt.NDArray[np.int32]]:
    """Return the tables of all levels as they are stored: offsets and lengths [levels, C], counts [levels, C, L]."""
    longest = max(tables.counts.shape[1] for tables in levels)
    counts = [np.pad(tables.counts, ((0, 0), (0, longest - tables.counts.shape[1]))) for tables in levels]
    return {
        "offsets": np.stack([tables.offsets for tables in levels]),
        "lengths": np.stack([tables.lengths for tables in levels]),
        "counts": np.stack(counts),
    }


def check_tables(tables: ChannelTables) -> None:
    """Refuse untrusted tables that cannot be coded with.

    Raises:
        UserError: Shapes do not go together, a table is empty or has no escape, or counts are not positive numbers that
            sum to 2^16.
    """
    offsets, lengths, counts = tables
    if offsets.ndim != 1 or lengths.shape != offsets.shape or counts.shape[:-1] != offsets.shape:
        raise UserError(
            f"expected tables of shapes [C], [C] and [C, L], got {offsets.shape}, {lengths.shape} and {counts.shape}"
        )
    if any(abs(int(offset)) > LARGEST_SYMBOL for offset in offsets):
        raise UserError(f"a table of a channel begins outside +-{LARGEST_SYMBOL}")
    for channel, length in enumerate(lengths):
        is_length = 2 <= length <= counts.shape[-1]
        check_counts(counts[channel, : length if is_length else 0], TOTAL, f"the counts of channel {channel}")


def encode_channels(tables: ChannelTables, symbols: npt.NDArray[np.int32]) -> bytes:
    """Code symbols [h, w, C], channel after channel, the escapes of a channel after its entries.

    Raises:
        UserError: Another number of channels, or a symbol outside +-32767.
    """
    if symbols.shape[-1] != len(tables.offsets):
        raise UserError(f"expected symbols of {len(tables.offsets)} channels, got {symbols.shape[-1]}")
    if not _in_range(symbols):
        raise UserError(f"expected symbols within +-{LARGEST_SYMBOL}, got {symbols.min()} to {symbols.max()}")
    encoder = RangeEncoder()
    for channel, (offset, length, counts) in enumerate(zip(*tables, strict=True)):
        entries, outside = _entries(symbols[..., channel], offset, length)
        encoder.encode_symbols(np.where(outside, length - 1, entries), counts[:length])
        for _, bits, probabilities in bits_of_numbers(_escape_numbers(entries[outside], length - 1)):
            encoder.encode_bits(bits, probabilities)
    return encoder.finish()


def decode_channels(tables: ChannelTables, data: bytes, *, rows: int, columns: int) -> npt.NDArray[np.int32]:
    """Undo `encode_channels`.

    Raises:
        UserError: Damaged data.
    """
    decoder = RangeDecoder(data)
    symbols = np.zeros((rows * columns, len(tables.offsets)), np.int32)
    for channel, (offset, length, counts) in enumerate(zip(*tables, strict=True)):
        escape = int(length) - 1
        entries = decoder.decode_symbols(rows * columns, counts[:length])
        outside = entries == escape
        entries[outside] = _symbols_of(decode_numbers(decoder, int(outside.sum())), escape)
        symbols[:, channel] = entries + offset
    if not _in_range(symbols):
        raise UserError("the coded symbols are damaged; get the file again")
    return symbols.reshape(rows, columns, -1)


def _entries(
    symbols: npt.NDArray[np.int32], offset: np.int32, length: np.int32
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return the symbols of a channel counted from the first of its table [n], and which of them need an escape."""
    entries = symbols.reshape(-1) - offset
    return entries, (entries < 0) | (entries >= length - 1)


def _in_range(symbols: npt.NDArray[np.int32]) -> bool:
    """Return whether all symbols can be coded; nothing of their size is allocated."""
    return not symbols.size or -LARGEST_SYMBOL <= int(symbols.min()) <= int(symbols.max()) <= LARGEST_SYMBOL


def _escape_numbers(entries: npt.NDArray[np.int32], escape: np.int32) -> npt.NDArray[np.int32]:
    """Number entries outside 0 to escape - 1: 1, 3, 5, ... count up from the escape, 2, 4, 6, ... down from -1."""
    return np.where(entries < 0, -2 * entries, 2 * (entries - escape) + 1)


def _symbols_of(numbers: npt.NDArray[np.int32], escape: int) -> npt.NDArray[np.int32]:
    """Undo `_escape_numbers`."""
    return np.where(numbers % 2, escape + numbers // 2, -(numbers // 2))
