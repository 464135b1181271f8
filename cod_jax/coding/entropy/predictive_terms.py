"""Terms from which mode "predictive" predicts a symbol: its neighbours, the channels before it, and sums of both.

All numbers are integers below 2^53 in float64, which holds them and their sums exactly in any order: the same on every
machine, and several times as fast as with 64-bit integers.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.coding.entropy.context import NUM_NEIGHBOURS, batches
from cod_jax.coding.symbols import LARGEST_SYMBOL
from cod_jax.errors import UserError

# Channels of the first groups; all later groups have the last number.
GROUP_SIZES = (1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 64)
# Channels before a group that each of its channels looks at.
NUM_SOURCES = 8
# Sums of opposite neighbours, and the sources, predict the value; a constant, magnitudes of the same, and three
# energies predict the spread.
NUM_PAIRS = NUM_NEIGHBOURS // 2
NUM_MEAN_TERMS = NUM_PAIRS + NUM_SOURCES
NUM_ENERGIES = 3
NUM_SPREAD_TERMS = 1 + NUM_MEAN_TERMS + NUM_ENERGIES
# Magnitudes count up to here in energies, which tell where there is anything.
ENERGY_LIMIT = 3
# Symbols whose terms are held at a time by a thread, so that they stay in the processor's caches.
MAX_PART = 2**16
Numbers = npt.NDArray[np.float64]


def channel_groups(num_channels: int) -> list[tuple[int, int]]:
    """Return the first channel of each group, and the one after its last."""
    groups: list[tuple[int, int]] = []
    first = 0
    while first < num_channels:
        size = GROUP_SIZES[min(len(groups), len(GROUP_SIZES) - 1)]
        groups.append((first, min(first + size, num_channels)))
        first += size
    return groups


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
        """Yield the batch in parts of few symbols."""
        size = max(1, MAX_PART // (self.last - self.first))
        for start in range(0, self.place.size, size):
            chosen = slice(start, start + size)
            yield self._replace(place=self.place[chosen], neighbours=self.neighbours[:, chosen])


class Terms(NamedTuple):
    """Terms that predict the symbols of a batch of G channels at n positions.

    Attributes:
        pairs: Sums of opposite neighbours in the same channel [G, 2, n].
        magnitudes: The same of their magnitudes [G, 2, n].
        sources: Symbols at the same positions of the channels that each channel looks at [G, NUM_SOURCES, n].
        energies: Sums of limited magnitudes, the same for all channels [3, n].
    """

    pairs: Numbers
    magnitudes: Numbers
    sources: Numbers
    energies: Numbers


class Known:
    """The symbols of a picture, of which those of earlier batches are known.

    Args:
        symbols: All symbols [h, w, C]; in decoding those not known yet are zero.
    """

    def __init__(self, symbols: npt.NDArray[np.integer]) -> None:
        self._rows, self._columns, self._channels = symbols.shape
        # The border is zero, and so is the channel after the last, which stands for no source.
        values = np.zeros((self._channels + 1, self._rows + 1, self._columns + 1))
        values[:-1, :-1, :-1] = symbols.transpose(2, 0, 1)
        self._values, self._flat = values.reshape(len(values), -1), values.reshape(-1)
        self._energy = np.zeros(self._values.shape[1])
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

    @property
    def num_places(self) -> int:
        """Positions of the flat grid, with its border."""
        return self._values.shape[1]

    @property
    def width(self) -> int:
        """Positions of a row of the flat grid, with its border."""
        return self._columns + 1

    def values(self, first: int, last: int) -> Numbers:
        """Return the symbols of channels at all places [last - first, num_places]; the border is zero."""
        return self._values[first:last]

    def _sums_around(self, energy: Numbers) -> Numbers:
        """Return sums over 3x3 positions; the border stays zero."""
        grid = np.pad(energy.reshape(self._rows + 1, self._columns + 1), ((1, 0), (1, 0)))
        down = grid[:-2] + grid[1:-1] + grid[2:]
        around = down[:, :-2] + down[:, 1:-1] + down[:, 2:]
        return np.pad(around, ((0, 1), (0, 1))).reshape(-1)

    def terms(self, batch: ChannelBatch, sources: npt.NDArray[np.integer]) -> Terms:
        """Return the terms that predict a batch.

        Args:
            batch: The batch, or a part of it.
            sources: The channels that each channel of its group looks at, -1 for none [G, NUM_SOURCES].
        """
        num_channels, num = batch.last - batch.first, batch.place.size
        places = batch.neighbours.reshape(-1)
        starts = sources.astype(np.intp) % len(self._values) * self._energy.size
        own = self._values[batch.first : batch.last].take(places, axis=1).reshape(num_channels, NUM_NEIGHBOURS, num)
        magnitudes = np.abs(own)
        around = np.minimum(magnitudes, ENERGY_LIMIT).sum(axis=(0, 1))
        return Terms(
            pairs=own[:, ::2] + own[:, 1::2],
            magnitudes=magnitudes[:, ::2] + magnitudes[:, 1::2],
            sources=self._flat.take(starts[..., None] + batch.place),
            energies=np.stack([around, self._energy[batch.place], self._energy_around[batch.place]]),
        )

    def at(self, batch: ChannelBatch) -> npt.NDArray[np.int64]:
        """Return the symbols of a batch, channel after channel."""
        return self._values[batch.first : batch.last].take(batch.place, axis=1).reshape(-1).astype(np.int64)

    def put(self, array: npt.NDArray[np.int32], batch: ChannelBatch, values: npt.NDArray[np.integer]) -> None:
        """Write values of a batch, channel after channel, to their places in an array [h, w, C]."""
        rows, columns = np.divmod(batch.place, self._columns + 1)
        array[rows, columns, batch.first : batch.last] = values.reshape(-1, batch.place.size).T

    def set(self, batch: ChannelBatch, symbols: npt.NDArray[np.int64]) -> None:
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


def _energies(values: Numbers) -> Numbers:
    return np.minimum(np.abs(values), ENERGY_LIMIT)


def weighted(
    mean_weights: npt.NDArray[np.integer], spread_weights: npt.NDArray[np.integer], terms: Terms
) -> tuple[Numbers, Numbers]:
    """Return the weighted sums [G, n] that predict the values of a batch, and those that predict its spreads.

    Args:
        mean_weights: [G, NUM_MEAN_TERMS].
        spread_weights: [G, NUM_SPREAD_TERMS].
        terms: The terms of the batch.
    """
    mean, spread = mean_weights.astype(np.float64), spread_weights.astype(np.float64)
    value = _sums(mean[:, :NUM_PAIRS], terms.pairs) + _sums(mean[:, NUM_PAIRS:], terms.sources)
    of_pairs, of_sources, of_energies = np.split(spread[:, 1:], [NUM_PAIRS, NUM_MEAN_TERMS], axis=1)
    width = _sums(of_pairs, terms.magnitudes) + _sums(of_sources, np.abs(terms.sources))
    width += np.einsum("gt,tn->gn", of_energies, terms.energies)
    width += spread[:, :1]
    return value, width


def _sums(weights: Numbers, terms: Numbers) -> Numbers:
    return np.asarray(np.einsum("gt,gtn->gn", weights, terms), np.float64)
