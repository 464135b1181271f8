"""Small networks of integers that correct what mode "predictive" expects of a symbol.

Each group of channels has one: two hidden layers see the neighbours of the group's symbols, the channels before it with
the neighbours of those, and what the weighted sums say. Its outputs move the predicted values and choose wider or
narrower distributions. Inputs are logarithms, so that one network serves all quality levels.

All numbers are integers below 2^53 in float64, as in `predictive_terms`.
"""

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import threadpoolctl  # pyright: ignore[reportMissingTypeStubs]

from cod_jax.coding.entropy.context import NUM_CLASSES
from cod_jax.coding.entropy.predictive_terms import NUM_PAIRS, ChannelBatch, Known, Numbers, Terms, channel_groups
from cod_jax.coding.symbols import SymbolFormat

WIDTH = 64
# Inputs per channel of the group: chosen spread, predicted value, sums of opposite neighbours and of their magnitudes.
# Inputs per channel before it: symbol, its magnitude, magnitudes around.
NUM_OWN, NUM_BEFORE = 2 + 2 * NUM_PAIRS, 3
# Logarithms are in units of a twelfth of an octave, and inputs of the first layer weigh 2^-14, those of others 2^-12.
LOG_UNIT, FIRST_BITS, WEIGHT_BITS = 12, 14, 12
# Values between layers are in units of 2^-10 and limited, so that all sums stay below 2^53.
HIDDEN_BITS = 10
HIDDEN_LIMIT = float(2**20)
# A predicted value moves by at most its spread, and this much, times the output; in units of 2^-12.
SMALLEST_MOVE, LARGEST_MOVE = 205.0, 4096.0
# Of magnitudes counted in eighths; larger ones count as the largest.
_LARGEST_EIGHTHS = 2047
# floor(24 log2 x) is one less than the bits of x^24 where x is whole; here x is in eighths.
_LOGS = np.array([((8 + n) ** 24).bit_length() - 3 * 24 for n in range(_LARGEST_EIGHTHS + 1)], np.int64) // 2


def signed_logs(eighths: Numbers) -> Numbers:
    """Return 12 log2(1 + |x|) with the sign of x, rounded to whole numbers, of whole numbers of eighths."""
    magnitudes = _LOGS[np.minimum(np.abs(eighths), _LARGEST_EIGHTHS).astype(np.intp)].astype(np.float64)
    return np.copysign(magnitudes, eighths)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Weights of the networks of all groups of channels.

    Attributes:
        network_in: Weights of the inputs [inputs, WIDTH], group after group; of each first those that `BeforeInputs`
            gives, then those of `own_inputs`.
        network_levels: What the level adds to the first layer [levels, groups, WIDTH].
        network_kinds: What the class of the batch adds to it [classes, groups, WIDTH].
        network_hidden: Weights of the second layer [groups, outputs, inputs], WIDTH each.
        network_hidden_bias: What is added there [groups, WIDTH].
        network_out: Weights of the two outputs of each channel [C, 2, WIDTH].
        network_out_bias: What is added there [C, 2].
    """

    network_in: npt.NDArray[np.int16]
    network_levels: npt.NDArray[np.int32]
    network_kinds: npt.NDArray[np.int32]
    network_hidden: npt.NDArray[np.int16]
    network_hidden_bias: npt.NDArray[np.int32]
    network_out: npt.NDArray[np.int16]
    network_out_bias: npt.NDArray[np.int32]

    def of_picture(self, known: Known, level: int) -> "PictureNetwork":
        """Return the networks for the symbols of a picture."""
        return PictureNetwork(self, known, level)


def network_layout(symbols: SymbolFormat) -> dict[str, tuple[tuple[int, ...], type[np.integer]]]:
    """Return the shape and type of each table by name."""
    groups = channel_groups(symbols.num_channels)
    inputs = sum(num_inputs(first, last) for first, last in groups)
    return {
        "network_in": ((inputs, WIDTH), np.int16),
        "network_levels": ((symbols.num_levels, len(groups), WIDTH), np.int32),
        "network_kinds": ((NUM_CLASSES, len(groups), WIDTH), np.int32),
        "network_hidden": ((len(groups), WIDTH, WIDTH), np.int16),
        "network_hidden_bias": ((len(groups), WIDTH), np.int32),
        "network_out": ((symbols.num_channels, 2, WIDTH), np.int16),
        "network_out_bias": ((symbols.num_channels, 2), np.int32),
    }


def num_inputs(first: int, last: int) -> int:
    """Return the inputs of the network of a group of channels."""
    return NUM_BEFORE * first + NUM_OWN * (last - first)


def _ends(first: int, last: int) -> list[int]:
    return [NUM_BEFORE * first, num_inputs(first, last)]


def own_inputs(place: Numbers, eighths: Numbers, terms: Terms) -> Numbers:
    """Return the inputs [NUM_OWN G, n] that concern the channels of a group themselves.

    Args:
        place: Number of the chosen spread [G, n].
        eighths: Predicted values in eighths [G, n].
        terms: The terms that both come from.
    """
    pairs = signed_logs(8 * np.concatenate(list(terms.pairs)))
    magnitudes = signed_logs(8 * np.concatenate(list(terms.magnitudes)))
    return np.concatenate([place, signed_logs(eighths), pairs, magnitudes])


class PictureNetwork:
    """The networks for the symbols of one picture.

    Args:
        network: The weights.
        known: The symbols of the picture; when a batch is asked for, the groups before it must be known.
        level: Quality level of the picture.
    """

    def __init__(self, network: Network, known: Known, level: int) -> None:
        self._network, self._known, self._level = network, known, level
        self._groups = channel_groups(len(network.network_out))
        self._before = BeforeInputs(known, self._groups)
        self._group: GroupNetwork | None = None

    def of_group(self, first: int, last: int) -> "GroupNetwork":
        """Return the network of a group of channels, of which all channels before are known."""
        number = self._groups.index((first, last))
        if self._group is None or self._group.number != number:
            with one_thread_each():
                self._group = self._of_group(number)
        return self._group

    def _of_group(self, number: int) -> "GroupNetwork":
        first, last = self._groups[number]
        start = sum(num_inputs(*group) for group in self._groups[:number])
        before, own, _ = np.split(self._network.network_in[start:].T.astype(np.float64), _ends(first, last), axis=1)
        kinds = self._network.network_kinds[:, number] + self._network.network_levels[self._level, number].astype(float)
        out = self._network.network_out[first:last].reshape(-1, WIDTH)
        return GroupNetwork(
            number,
            before=before @ self._before.of(number),  # of the whole picture at once
            own=own,
            kinds=kinds,
            hidden=self._network.network_hidden[number].astype(np.float64),
            hidden_bias=self._network.network_hidden_bias[number][:, None].astype(np.float64),
            out=out.astype(np.float64),
            out_bias=self._network.network_out_bias[first:last].reshape(-1, 1).astype(np.float64),
        )


class GroupNetwork(NamedTuple):
    """Weights of the network of a group, and what its first layer gets from the channels before [WIDTH, places]."""

    number: int
    before: Numbers
    own: Numbers
    kinds: Numbers
    hidden: Numbers
    hidden_bias: Numbers
    out: Numbers
    out_bias: Numbers

    def corrections(self, batch: ChannelBatch, own: Numbers, spread: Numbers) -> tuple[Numbers, Numbers]:
        """Return what is added to the weighted sums that predict values, and to the numbers of the spreads [G, n].

        Args:
            batch: The batch, or a part of it.
            own: What `own_inputs` returns for it.
            spread: Its weighted sums of the spreads [G, n].
        """
        out = self._outputs(batch, own)
        moves = np.clip(np.floor(out[:, 0] / 2**HIDDEN_BITS), -HIDDEN_LIMIT, HIDDEN_LIMIT)
        reach = np.minimum(spread + SMALLEST_MOVE, LARGEST_MOVE)
        return np.floor(moves * reach / 2**WEIGHT_BITS), np.floor(out[:, 1] / 2 ** (HIDDEN_BITS + WEIGHT_BITS) + 0.5)

    def _outputs(self, batch: ChannelBatch, own: Numbers) -> Numbers:
        """Return the two outputs of each channel [G, 2, n]."""
        hidden = self.own @ own + self.before[:, batch.place] + self.kinds[batch.kind][:, None]
        hidden = self.hidden @ _activated(hidden, FIRST_BITS) + self.hidden_bias
        out = self.out @ _activated(hidden, HIDDEN_BITS + WEIGHT_BITS) + self.out_bias
        return out.reshape(-1, 2, out.shape[-1])


class BeforeInputs:
    """Inputs that concern the channels before a group, at all places of a picture.

    Args:
        known: The symbols of the picture.
        groups: First channel of each group, and the one after its last.
    """

    def __init__(self, known: Known, groups: list[tuple[int, int]]) -> None:
        self._known, self._groups, self._done = known, groups, 0
        self._inputs = np.zeros((NUM_BEFORE * groups[-1][0], known.num_places))

    def of(self, number: int) -> Numbers:
        """Return the inputs [NUM_BEFORE first, places] of a group; the groups before it must be known."""
        for first, last in self._groups[self._done : number]:
            signed = signed_logs(8 * self._known.values(first, last))
            magnitudes = np.abs(signed)
            # The border is zero, and what is rolled over the ends comes from there.
            around = [np.roll(magnitudes, shift, axis=1) for shift in (-self._known.width, -1, 1, self._known.width)]
            self._inputs[NUM_BEFORE * first : NUM_BEFORE * last] = np.concatenate([signed, magnitudes, sum(around)])
        self._done = max(self._done, number)
        return self._inputs[: NUM_BEFORE * self._groups[number][0]]


def one_thread_each() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which each matrix product runs on one thread.

    Products as small as these take ten times as long on several threads where other programs use the processor too.
    """
    return _libraries().limit(limits=1, user_api="blas")  # pyright: ignore[reportUnknownMemberType]


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def _activated(sums: Numbers, bits: int) -> Numbers:
    """Return the positive sums, in units of 2^-bits, as values between layers."""
    return np.clip(np.floor(sums / 2 ** (bits - HIDDEN_BITS)), 0.0, HIDDEN_LIMIT)


def as_tables(weights: dict[str, npt.NDArray[np.floating]], layout: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return weights as tables of integers.

    Args:
        weights: Real numbers by name of the table.
        layout: What `network_layout` returns.
    """
    bits = {
        "network_in": FIRST_BITS,
        "network_levels": FIRST_BITS,
        "network_kinds": FIRST_BITS,
        "network_hidden": WEIGHT_BITS,
        "network_out": WEIGHT_BITS,
    }
    tables: dict[str, npt.NDArray[Any]] = {}
    for name, (shape, kind) in layout.items():
        limits = np.iinfo(kind)
        scaled = np.rint(weights[name] * 2.0 ** bits.get(name, HIDDEN_BITS + WEIGHT_BITS))
        tables[name] = np.clip(scaled, limits.min, limits.max).astype(kind).reshape(shape)
    return tables
