"""Mode "predictive": each integer is predicted from its neighbours and from the channels before it.

Channels are coded in groups, the strongest channels first and alone, the weak ones many at a time. The symbols of a
group are coded from coarse to fine in the batches of mode "context", so every symbol of a batch is coded with the same
few calls. Two weighted sums of known symbols say what a symbol is likely to be and how far off that is: one of symbols
predicts its value to an eighth, one of magnitudes chooses one of `NUM_SPREADS` distributions of the difference.
Everything is integers.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.coding.container import Mode
from cod_jax.coding.entropy.context import NUM_CLASSES, NUM_NEIGHBOURS, batches
from cod_jax.coding.entropy.elias_gamma import bits_of_numbers, decode_numbers
from cod_jax.coding.entropy.factorized import named_level
from cod_jax.coding.entropy.model import EntropyModel, Tables, check_layout
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder, least_bytes
from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.errors import UserError

# Channels of the first groups; all later groups have the last number.
GROUP_SIZES = (1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 64)
# Channels before a group that each of its channels looks at.
NUM_SOURCES = 8
# Sums of opposite neighbours, and the sources, predict the value; a constant, magnitudes of the same, and three
# energies predict the spread.
NUM_MEAN_TERMS = NUM_NEIGHBOURS // 2 + NUM_SOURCES
NUM_SPREAD_TERMS = 1 + NUM_MEAN_TERMS + 3
# Weights are in units of 2^-12, predictions in eighths.
WEIGHT_BITS, FRACTION_BITS = 12, 3
FRACTION = 2**FRACTION_BITS
# Magnitudes count up to here in energies, which tell where there is anything.
ENERGY_LIMIT = 3
NUM_SPREADS = 48
# A difference is coded by whether it is zero, its sign, and whether its magnitude is above 1, 2, ..., MAX_UNARY. What
# is above MAX_UNARY follows in an Elias gamma code.
MAX_UNARY = 14
NUM_NODES = 2 + MAX_UNARY
_ZERO_NODE, _SIGN_NODE, _FIRST_NODE = 0, 1, 2
# Fractions 0 to 4 eighths; those below 0 are their mirror images.
NUM_FRACTIONS = FRACTION // 2 + 1
# Predictions are limited, so that a difference is below 2^17.
_LARGEST_PREDICTION = FRACTION * 2 * LARGEST_SYMBOL
# Symbols whose terms are held at a time.
MAX_PART = 2**19
_Integers = npt.NDArray[np.int64]


class Coded(NamedTuple):
    """Differences of a batch and how they are distributed.

    Attributes:
        base: Predicted values, integers [n].
        mirrored: Whether a positive difference counts downwards [n].
        rows: Row of the table of probabilities for each [n].
    """

    base: _Integers
    mirrored: npt.NDArray[np.bool_]
    rows: _Integers


@dataclasses.dataclass(frozen=True, eq=False)
class PredictiveModel(EntropyModel):
    """Codes integers of several channels; where there are several quality levels, the first byte names the level.

    Attributes:
        sources: Channels before its group that each channel looks at; -1 for none [C, NUM_SOURCES].
        mean_weights: Weights of the terms that predict a symbol [levels, classes, C, NUM_MEAN_TERMS].
        spread_weights: Weights, at least 0, of the terms that predict how far off the symbol is [levels, classes, C,
            NUM_SPREAD_TERMS].
        spread_limits: Where the next wider distribution begins, increasing [NUM_SPREADS - 1].
        outcomes: Probability of a 1 at each node in units of 2^-16 [NUM_SPREADS, NUM_FRACTIONS, NUM_NODES].
    """

    mode: ClassVar[Mode] = "predictive"
    sources: npt.NDArray[np.int16]
    mean_weights: npt.NDArray[np.int16]
    spread_weights: npt.NDArray[np.int32]
    spread_limits: npt.NDArray[np.int32]
    outcomes: npt.NDArray[np.uint16]

    @classmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "PredictiveModel | None":
        """Return the model of integers of several channels and levels; see `EntropyModel.from_tables`."""
        layout = table_layout(symbols)
        if symbols.bits is not None or not set(layout) & set(tables):
            return None
        check_layout(tables, layout, symbols)
        own: dict[str, Any] = {name: tables[name] for name in layout}
        for first, last in channel_groups(symbols.num_channels):
            sources = own["sources"][first:last]
            if sources.min() < -1 or sources.max() >= first:
                raise UserError("the prior looks at channels that are not known yet")
        if own["spread_weights"].min() < 0 or own["outcomes"].min() < 1:
            raise UserError("the prior holds a negative spread or a probability of zero")
        if (np.diff(own["spread_limits"]) < 0).any():
            raise UserError("expected the spread limits of the prior to increase")
        return cls(**own)

    @classmethod
    def largest_tables(cls, symbols: SymbolFormat) -> dict[str, int]:
        """Return the sizes of the tables; see `EntropyModel.largest_tables`."""
        layout = table_layout(symbols) if symbols.bits is None else {}
        return {name: math.prod(shape) for name, (shape, _) in layout.items()}

    @property
    def num_levels(self) -> int:
        """Quality levels of the model."""
        return len(self.mean_weights)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tables by name."""
        return dict(vars(self))

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Code symbols of the level; see `EntropyModel.encode`."""
        encoder = RangeEncoder()
        for bits, probabilities in self._coded_bits(symbols, level):
            encoder.encode_bits(bits, probabilities)
        return (bytes([level]) if self.num_levels > 1 else b"") + encoder.finish()

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`."""
        level = named_level(data, self.num_levels)
        decoder = RangeDecoder(data[1:] if self.num_levels > 1 else data)
        known = Known(np.zeros((rows, columns, len(self.sources)), np.int32))
        for batch in known.batches():
            coded = self._predict(level, known, batch)
            known.set(batch, coded.base + _decode_differences(decoder, self._table, coded))
        return known.symbols(), level

    def estimated_bits(self, symbols: npt.NDArray[np.int32], level: int) -> float:
        """Return -log2 of the probability of the symbols."""
        return -sum(
            float(np.log2(np.where(bits, ones, TOTAL - ones) / TOTAL).sum())
            for bits, ones in self._coded_bits(symbols, level)
        )

    def least_bytes(self, *, rows: int, columns: int) -> int:
        """Return the bytes of differences that are all zero, or all not, where that is likeliest; or fewer."""
        ones = self.outcomes[..., _ZERO_NODE]
        likeliest = max(int(ones.max()), TOTAL - int(ones.min()))
        return least_bytes(rows * columns, np.full(len(self.sources), likeliest))

    @property
    def _table(self) -> npt.NDArray[np.int32]:
        return self.outcomes.reshape(-1, NUM_NODES).astype(np.int32)

    def _coded_bits(
        self, symbols: npt.NDArray[np.int32], level: int
    ) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
        """Yield the bits of symbols [h, w, C] with the probability that each is 1, in the order they are coded in."""
        if symbols.shape[-1] != len(self.sources):
            raise UserError(f"expected symbols of {len(self.sources)} channels, got {symbols.shape[-1]}")
        known = Known(symbols)
        for batch in known.batches():
            coded = self._predict(level, known, batch)
            yield from _bits_of_differences(known.at(batch) - coded.base, self._table, coded)

    def _predict(self, level: int, known: "Known", batch: "ChannelBatch") -> Coded:
        """Return the predictions of a batch."""
        group = slice(batch.first, batch.last)
        weights = self.mean_weights[level, batch.kind, group], self.spread_weights[level, batch.kind, group]
        # The terms are many times the symbols, so those of large pictures are not held all at once.
        parts = [weighted(*weights, *known.terms(part, self.sources[group])) for part in batch.parts()]
        value, spread = (np.concatenate(of_parts, axis=1) for of_parts in zip(*parts, strict=True))
        return coded_by(self.spread_limits, value, spread)


def weighted(
    mean_weights: npt.NDArray[np.integer],
    spread_weights: npt.NDArray[np.integer],
    means: _Integers,
    spreads: _Integers,
) -> tuple[_Integers, _Integers]:
    """Return the predictions [G, n], in eighths, and the spreads [G, n], in units of 2^-12, of a batch."""
    value = np.einsum("gt,gtn->gn", mean_weights.astype(np.int64), means)
    shift = WEIGHT_BITS - FRACTION_BITS
    value = np.clip((value + (1 << (shift - 1))) >> shift, -_LARGEST_PREDICTION, _LARGEST_PREDICTION)
    return value, np.einsum("gt,gtn->gn", spread_weights.astype(np.int64), spreads)


def coded_by(spread_limits: npt.NDArray[np.int32], value: _Integers, spread: _Integers) -> Coded:
    """Return how the symbols of a batch are coded, given their predictions and spreads [G, n]; flattened."""
    value = value.reshape(-1)
    base = (value + FRACTION // 2) >> FRACTION_BITS
    fraction = value - FRACTION * base
    place = np.searchsorted(spread_limits, spread.reshape(-1), side="right")
    return Coded(base, fraction < 0, place * NUM_FRACTIONS + np.abs(fraction))


def channel_groups(num_channels: int) -> list[tuple[int, int]]:
    """Return the first channel of each group, and the one after its last."""
    groups: list[tuple[int, int]] = []
    first = 0
    while first < num_channels:
        size = GROUP_SIZES[min(len(groups), len(GROUP_SIZES) - 1)]
        groups.append((first, min(first + size, num_channels)))
        first += size
    return groups


def table_layout(symbols: SymbolFormat) -> dict[str, tuple[tuple[int, ...], type[np.integer]]]:
    """Return the shape and type of each table by name."""
    levels, channels = symbols.num_levels, symbols.num_channels
    return {
        "sources": ((channels, NUM_SOURCES), np.int16),
        "mean_weights": ((levels, NUM_CLASSES, channels, NUM_MEAN_TERMS), np.int16),
        "spread_weights": ((levels, NUM_CLASSES, channels, NUM_SPREAD_TERMS), np.int32),
        "spread_limits": ((NUM_SPREADS - 1,), np.int32),
        "outcomes": ((NUM_SPREADS, NUM_FRACTIONS, NUM_NODES), np.uint16),
    }


class ChannelBatch(NamedTuple):
    """Symbols of a group of channels that are coded together.

    Attributes:
        first: First channel of the group.
        last: The channel after its last.
        kind: Which weights they use, 0 to NUM_CLASSES - 1.
        place: Positions of the symbols, as places in the flat grid with a border [n].
        neighbours: Positions of the neighbours of each [4, n].
    """

    first: int
    last: int
    kind: int
    place: npt.NDArray[np.intp]
    neighbours: npt.NDArray[np.intp]

    def parts(self) -> Iterator["ChannelBatch"]:
        """Yield the batch in parts of so few positions that their terms take less than 100 megabytes."""
        size = MAX_PART // (self.last - self.first)
        for start in range(0, self.place.size, size):
            chosen = slice(start, start + size)
            yield self._replace(place=self.place[chosen], neighbours=self.neighbours[:, chosen])


class Known:
    """The symbols of a picture, of which those of earlier batches are known.

    Args:
        symbols: All symbols [h, w, C]; in decoding those not known yet are zero.
    """

    def __init__(self, symbols: npt.NDArray[np.int32]) -> None:
        self._rows, self._columns, self._channels = symbols.shape
        # The border is zero, and so is the channel after the last, which stands for no source.
        values = np.pad(symbols.astype(np.int64).transpose(2, 0, 1), ((0, 1), (0, 1), (0, 1)))
        self._values = values.reshape(self._channels + 1, -1)
        self._energy = np.zeros(self._values.shape[1], np.int64)
        self._energy_around = self._energy

    def batches(self) -> Iterator[ChannelBatch]:
        """Yield the batches in the order of coding; after each the symbols of a batch must be known."""
        width = self._columns + 1
        places: list[tuple[int, npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
        for batch in batches(self._rows, self._columns):
            spots = [batch.place, *batch.neighbours]
            # Index -1 is the border.
            flat = [np.add(row % (self._rows + 1) * width, column % width).reshape(-1) for row, column in spots]
            places.append((batch.kind, flat[0], np.stack(flat[1:])))
        for first, last in channel_groups(self._channels):
            for kind, place, neighbours in places:
                yield ChannelBatch(first, last, kind, place, neighbours)
            self._energy = self._energy + _energies(self._values[first:last]).sum(axis=0)
            self._energy_around = self._sums_around(self._energy)

    def _sums_around(self, energy: _Integers) -> _Integers:
        """Return sums over 3x3 positions; the border stays zero."""
        grid = np.pad(energy.reshape(self._rows + 1, self._columns + 1), ((1, 0), (1, 0)))
        down = grid[:-2] + grid[1:-1] + grid[2:]
        around = down[:, :-2] + down[:, 1:-1] + down[:, 2:]
        return np.pad(around, ((0, 1), (0, 1))).reshape(-1)

    def terms(self, batch: ChannelBatch, sources: npt.NDArray[np.int16]) -> tuple[_Integers, _Integers]:
        """Return the terms that predict a batch: values [G, NUM_MEAN_TERMS, n] and spreads [G, NUM_SPREAD_TERMS, n]."""
        own = self._values[batch.first : batch.last][:, batch.neighbours]
        of_sources = self._values[sources[..., None], batch.place]
        magnitudes = np.abs(own)
        num_channels, num = own.shape[0], batch.place.size
        pairs = (num_channels, NUM_NEIGHBOURS // 2, 2, num)
        means = np.concatenate([own.reshape(pairs).sum(axis=2), of_sources], axis=1)
        around = np.minimum(magnitudes, ENERGY_LIMIT).sum(axis=(0, 1))
        energies = np.stack([around, self._energy[batch.place], self._energy_around[batch.place]])
        spreads = np.concatenate(
            [
                np.ones((num_channels, 1, num), np.int64),
                magnitudes.reshape(pairs).sum(axis=2),
                np.abs(of_sources),
                np.broadcast_to(energies, (num_channels, 3, num)),
            ],
            axis=1,
        )
        return means, spreads

    def at(self, batch: ChannelBatch) -> _Integers:
        """Return the symbols of a batch, channel after channel."""
        return self._values[batch.first : batch.last][:, batch.place].reshape(-1)

    def set(self, batch: ChannelBatch, symbols: _Integers) -> None:
        """Take the symbols of a batch, channel after channel.

        Raises:
            UserError: A symbol is too large to have been coded.
        """
        if symbols.size and np.abs(symbols).max() > LARGEST_SYMBOL:
            raise UserError("the coded symbols are damaged; get the file again")
        self._values[batch.first : batch.last, batch.place] = symbols.reshape(-1, batch.place.size)

    def symbols(self) -> npt.NDArray[np.int32]:
        """Return all symbols [h, w, C]."""
        grid = self._values[:-1].reshape(self._channels, self._rows + 1, self._columns + 1)
        return np.ascontiguousarray(grid[:, :-1, :-1].transpose(1, 2, 0).astype(np.int32))


def _energies(values: _Integers) -> _Integers:
    return np.minimum(np.abs(values), ENERGY_LIMIT)


def _bits_of_differences(
    differences: _Integers, table: npt.NDArray[np.int32], coded: Coded
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Yield the bits of the differences of a batch [n] with the probability that each is 1."""
    magnitudes, negative = np.abs(differences), (differences < 0) != coded.mirrored
    yield (magnitudes > 0).astype(np.int32), table[coded.rows, _ZERO_NODE]
    chosen = np.flatnonzero(magnitudes)
    yield negative[chosen].astype(np.int32), table[coded.rows[chosen], _SIGN_NODE]
    for magnitude in range(1, MAX_UNARY + 1):
        if not chosen.size:
            return
        larger = magnitudes[chosen] > magnitude
        yield larger.astype(np.int32), table[coded.rows[chosen], _FIRST_NODE + magnitude - 1]
        chosen = chosen[larger]
    yield from bits_of_numbers(magnitudes[chosen] - MAX_UNARY)


def _decode_differences(decoder: RangeDecoder, table: npt.NDArray[np.int32], coded: Coded) -> _Integers:
    """Undo `_bits_of_differences`."""
    magnitudes = decoder.decode_bits(table[coded.rows, _ZERO_NODE]).astype(np.int64)
    chosen = np.flatnonzero(magnitudes)
    negative = coded.mirrored.copy()
    negative[chosen] ^= decoder.decode_bits(table[coded.rows[chosen], _SIGN_NODE]).astype(bool)
    for magnitude in range(1, MAX_UNARY + 1):
        if not chosen.size:
            break
        larger = decoder.decode_bits(table[coded.rows[chosen], _FIRST_NODE + magnitude - 1]).astype(bool)
        chosen = chosen[larger]
        magnitudes[chosen] += 1
    if chosen.size:
        magnitudes[chosen] = MAX_UNARY + decode_numbers(decoder, chosen.size)
    return np.where(negative, -magnitudes, magnitudes)
