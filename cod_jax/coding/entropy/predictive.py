"""Mode "predictive": each integer is predicted from its neighbours and from the channels before it.

Channels are coded in groups, the strongest channels first and alone, the weak ones many at a time. The symbols of a
group are coded from coarse to fine in the batches of mode "context", so every symbol of a batch is coded with the same
few calls. Two weighted sums of known symbols say what a symbol is likely to be and how far off that is: one of symbols
predicts its value to an eighth, one of magnitudes chooses one of `NUM_SPREADS` distributions of the difference.
Everything is integers.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.coding.container import Mode
from cod_jax.coding.entropy.context import NUM_CLASSES
from cod_jax.coding.entropy.elias_gamma import bits_of_numbers, decode_numbers
from cod_jax.coding.entropy.factorized import named_level
from cod_jax.coding.entropy.model import EntropyModel, Tables, check_layout
from cod_jax.coding.entropy.predictive_network import (
    GroupNetwork,
    Network,
    network_layout,
    one_thread_each,
    own_inputs,
)
from cod_jax.coding.entropy.predictive_terms import (
    NUM_MEAN_TERMS,
    NUM_SOURCES,
    NUM_SPREAD_TERMS,
    ChannelBatch,
    Known,
    Numbers,
    channel_groups,
    weighted,
)
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder, bit_costs, least_bytes
from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.cores import num_cores
from cod_jax.errors import UserError

# Weights are in units of 2^-12, predictions in eighths.
WEIGHT_BITS, FRACTION_BITS = 12, 3
FRACTION = 2**FRACTION_BITS
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
_Integers = npt.NDArray[np.int64]


# Of differences whose bits `PredictiveModel.costs` tells.
MAX_DIFFERENCE = MAX_UNARY + 3


class Costs(NamedTuple):
    """Bits of the symbols of a picture, each given the symbols that it is predicted from.

    Attributes:
        table: Bits of the differences -MAX_DIFFERENCE to MAX_DIFFERENCE, float32 [rows, 2 MAX_DIFFERENCE + 1].
        base: Predicted values, int32 [h, w, C].
        sign: -1 where a difference changes its sign before it is looked up, else 1, int32 [h, w, C].
        rows: Row of the table for each symbol, int32 [h, w, C].
    """

    table: npt.NDArray[np.float32]
    base: npt.NDArray[np.int32]
    sign: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]


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
        network: Networks that correct the weighted sums; None where there are none.
    """

    mode: ClassVar[Mode] = "predictive"
    sources: npt.NDArray[np.int16]
    mean_weights: npt.NDArray[np.int16]
    spread_weights: npt.NDArray[np.int32]
    spread_limits: npt.NDArray[np.int32]
    outcomes: npt.NDArray[np.uint16]
    network: Network | None = None

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
        of_network = network_layout(symbols)
        if not set(of_network) & set(tables):
            return cls(**own)
        check_layout(tables, of_network, symbols)
        return cls(**own, network=Network(**{name: tables[name] for name in of_network}))

    @classmethod
    def largest_tables(cls, symbols: SymbolFormat) -> dict[str, int]:
        """Return the sizes of the tables; see `EntropyModel.largest_tables`."""
        layout = {**table_layout(symbols), **network_layout(symbols)} if symbols.bits is None else {}
        return {name: math.prod(shape) for name, (shape, _) in layout.items()}

    @property
    def num_levels(self) -> int:
        """Quality levels of the model."""
        return len(self.mean_weights)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tables by name."""
        tables = {name: table for name, table in vars(self).items() if name != "network"}
        return {**tables, **(vars(self.network) if self.network else {})}

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Code symbols of the level; see `EntropyModel.encode`."""
        encoder = RangeEncoder()
        for _, _, bits, probabilities in self._coded_bits(symbols, level):
            encoder.encode_bits(bits, probabilities)
        return self._named(level) + encoder.finish()

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`."""
        symbols, level, _ = self.decode_and_encode(data, rows=rows, columns=columns)
        return symbols, level

    def decode_and_encode(
        self, data: bytes, *, rows: int, columns: int
    ) -> tuple[npt.NDArray[np.int32], int, bytes | None]:
        """Undo `encode`, and code every bit again as it is read; see `EntropyModel.decode_and_encode`.

        `encode` would code the same bits: predictions see earlier symbols only, which are the same there, and every
        difference that is not refused has one sequence of bits.
        """
        level = named_level(data, self.num_levels)
        again = RangeEncoder()
        decoder = RangeDecoder(data[len(self._named(level)) :], again)
        known, nodes = Known(np.zeros((rows, columns, len(self.sources)), np.int32)), self._nodes()
        for batch, coded in self.predictions(known, level):
            known.set(batch, coded.base + _decode_differences(decoder, nodes, coded))
        return known.symbols(), level, self._named(level) + again.finish()

    def _named(self, level: int) -> bytes:
        """Return the start of a payload, which names the level if there are several."""
        return bytes([level]) if self.num_levels > 1 else b""

    def symbol_bits(self, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float64]:
        """Return -log2 of the probability of each symbol."""
        rows, columns, num_channels = symbols.shape
        costs = np.zeros((num_channels, (rows + 1) * (columns + 1)))  # with the border, as places count
        for batch, chosen, bits, probabilities in self._coded_bits(symbols, level):
            channel, position = np.divmod(chosen, batch.place.size)
            costs[batch.first + channel, batch.place[position]] += bit_costs(bits, probabilities)
        return costs.reshape(num_channels, rows + 1, columns + 1)[:, :-1, :-1].transpose(1, 2, 0)

    def costs(self, symbols: npt.NDArray[np.int32], level: int) -> Costs:
        """Return the bits that each symbol, or another in its place, takes while all others [h, w, C] stay."""
        known = Known(symbols)
        coded = [np.empty(symbols.shape, np.int32) for _ in range(3)]
        for batch, (base, mirrored, rows) in self.predictions(known, level):
            for array, values in zip(coded, (base, np.where(mirrored, -1, 1), rows), strict=True):
                known.put(array, batch, values)
        return Costs(self._bits_by_difference(), *coded)

    def _bits_by_difference(self) -> npt.NDArray[np.float32]:
        ones = self._nodes() / TOTAL
        of_one, of_zero = -np.log2(ones), -np.log2(1 - ones)
        not_zero, larger = of_one[_ZERO_NODE], of_one[_FIRST_NODE:]
        # Of a magnitude: that it is above all smaller ones, and not above itself.
        above = np.concatenate([np.zeros((1, ones.shape[1])), np.cumsum(larger, axis=0)])
        magnitudes = not_zero + above[:-1] + of_zero[_FIRST_NODE:]
        # An Elias gamma code takes 2 floor(log2 n) + 1 bits.
        rest = [not_zero + above[-1] + 2 * n.bit_length() - 1 for n in range(1, MAX_DIFFERENCE - MAX_UNARY + 1)]
        positive = np.concatenate([magnitudes, np.stack(rest)])
        columns = [positive[::-1] + of_one[_SIGN_NODE], of_zero[None, _ZERO_NODE], positive + of_zero[_SIGN_NODE]]
        return np.concatenate(columns).T.astype(np.float32)

    def least_bytes(self, *, rows: int, columns: int) -> int:
        """Return the bytes of differences that are all zero, or all not, where that is likeliest; or fewer."""
        ones = self.outcomes[..., _ZERO_NODE]
        likeliest = max(int(ones.max()), TOTAL - int(ones.min()))
        return least_bytes(rows * columns, np.full(len(self.sources), likeliest))

    def _nodes(self) -> npt.NDArray[np.int32]:
        """Return the probability of a 1 at each node for each row of `Coded` [NUM_NODES, rows]."""
        return np.ascontiguousarray(self.outcomes.reshape(-1, NUM_NODES).T, np.int32)

    def _coded_bits(
        self, symbols: npt.NDArray[np.int32], level: int
    ) -> Iterator[tuple[ChannelBatch, npt.NDArray[np.intp], npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
        """Yield the bits of symbols [h, w, C] with the probability that each is 1, in the order they are coded in.

        Before them come the batch, and which of its symbols, counted channel after channel, the bits are of.
        """
        if symbols.shape[-1] != len(self.sources):
            raise UserError(f"expected symbols of {len(self.sources)} channels, got {symbols.shape[-1]}")
        known, nodes = Known(symbols), self._nodes()
        for batch, coded in self.predictions(known, level):
            for coded_bits in _bits_of_differences(known.at(batch) - coded.base, nodes, coded):
                yield batch, *coded_bits

    def predictions(self, known: Known, level: int) -> Iterator[tuple[ChannelBatch, Coded]]:
        """Yield the batches with how their symbols are coded; after each its symbols must be known."""
        network = self.network.of_picture(known, level) if self.network else None
        with ThreadPoolExecutor(num_cores()) as pool:
            for batch in known.batches():
                of_group = network.of_group(batch.first, batch.last) if network else None
                predict = functools.partial(self._predicted, known, level, of_group)
                parts = list(batch.parts())
                # The parts take the cores, so each product gets one.
                with one_thread_each():
                    predicted = list((pool.map if len(parts) > 1 else map)(predict, parts))
                yield batch, coded_by(*(np.concatenate(of_parts, axis=1) for of_parts in zip(*predicted, strict=True)))

    def _predicted(
        self, known: Known, level: int, network: GroupNetwork | None, part: ChannelBatch
    ) -> tuple[Numbers, Numbers]:
        """Return what predicts the symbols of a part of a batch, and the numbers of their spreads [G, n]."""
        group = slice(part.first, part.last)
        terms = known.terms(part, self.sources[group])
        value, spread = weighted(
            self.mean_weights[level, part.kind, group], self.spread_weights[level, part.kind, group], terms
        )
        place = places(self.spread_limits, spread)
        if not network:
            return value, place
        move, step = network.corrections(part, own_inputs(place, eighths(value), terms), spread)
        return value + move, np.clip(place + step, 0, NUM_SPREADS - 1)


def eighths(value: Numbers) -> Numbers:
    """Return predicted values in eighths, given weighted sums of whole numbers."""
    rounded = np.floor(value / float(1 << (WEIGHT_BITS - FRACTION_BITS)) + 0.5)
    return np.clip(rounded, -_LARGEST_PREDICTION, _LARGEST_PREDICTION)


def places(spread_limits: npt.NDArray[np.int32], spread: Numbers) -> Numbers:
    """Return the numbers of the distributions, given weighted sums of whole numbers."""
    return np.searchsorted(spread_limits.astype(np.float64), spread, side="right").astype(np.float64)


def coded_by(value: Numbers, place: Numbers) -> Coded:
    """Return how the symbols of a batch are coded, given what predicts them and the spreads' numbers [G, n]; flat."""
    predicted = eighths(value.reshape(-1))
    base = np.floor(predicted / FRACTION + 0.5)
    fraction = (predicted - FRACTION * base).astype(np.int64)
    rows = place.reshape(-1).astype(np.int64) * NUM_FRACTIONS + np.abs(fraction)
    return Coded(base.astype(np.int64), fraction < 0, rows)


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


def _bits_of_differences(
    differences: _Integers, nodes: npt.NDArray[np.int32], coded: Coded
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Yield the bits of the differences of a batch [n]: their places, the bits, the probability that each is 1."""
    magnitudes, negative = np.abs(differences), (differences < 0) != coded.mirrored
    yield np.arange(magnitudes.size), (magnitudes > 0).astype(np.int32), nodes[_ZERO_NODE].take(coded.rows)
    chosen = np.flatnonzero(magnitudes)
    yield chosen, negative[chosen].astype(np.int32), nodes[_SIGN_NODE].take(coded.rows[chosen])
    for magnitude in range(1, MAX_UNARY + 1):
        if not chosen.size:
            return
        larger = magnitudes[chosen] > magnitude
        yield chosen, larger.astype(np.int32), nodes[_FIRST_NODE + magnitude - 1].take(coded.rows[chosen])
        chosen = chosen[larger]
    if chosen.size:
        for places, bits, probabilities in bits_of_numbers(magnitudes[chosen] - MAX_UNARY):
            yield chosen[places], bits, probabilities


def _decode_differences(decoder: RangeDecoder, nodes: npt.NDArray[np.int32], coded: Coded) -> _Integers:
    """Undo `_bits_of_differences`."""
    magnitudes = decoder.decode_bits(nodes[_ZERO_NODE].take(coded.rows)).astype(np.int64)
    chosen = np.flatnonzero(magnitudes)
    negative = coded.mirrored.copy()
    negative[chosen] ^= decoder.decode_bits(nodes[_SIGN_NODE].take(coded.rows[chosen])).astype(bool)
    for magnitude in range(1, MAX_UNARY + 1):
        if not chosen.size:
            break
        larger = decoder.decode_bits(nodes[_FIRST_NODE + magnitude - 1].take(coded.rows[chosen])).astype(bool)
        chosen = chosen[larger]
        magnitudes[chosen] += 1
    if chosen.size:
        magnitudes[chosen] = MAX_UNARY + decode_numbers(decoder, chosen.size)
    return np.where(negative, -magnitudes, magnitudes)
