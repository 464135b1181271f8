"""Train the networks of mode "predictive" on symbols of pictures.

Training uses floats, and may come out differently on another machine: what it makes is frozen as integers.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.example_libraries import optimizers
from tqdm import tqdm

from cod_jax.coding.entropy.context import NUM_CLASSES
from cod_jax.coding.entropy.predictive import PredictiveModel, eighths, places
from cod_jax.coding.entropy.predictive_fitting import recounted
from cod_jax.coding.entropy.predictive_network import (
    LARGEST_MOVE,
    LOG_UNIT,
    SMALLEST_MOVE,
    WEIGHT_BITS,
    WIDTH,
    BeforeInputs,
    Network,
    as_tables,
    network_layout,
    num_inputs,
    own_inputs,
)
from cod_jax.coding.entropy.predictive_terms import Known, channel_groups, weighted
from cod_jax.coding.symbols import SymbolFormat

# Numbers that the inputs of a group have at most, in 16 bits each.
MAX_INPUTS = 2**27
BATCH_SIZE = 2048
LEARNING_RATE = 3e-3
# The scale of a logistic distribution over its mean distance from the middle is 1 / (2 log 2).
LOGISTIC_SCALE = 0.72
# Share of a uniform distribution over some symbols, so that one that surprises does not decide a step.
SURPRISES = 1e-4
# How the tables of groups become those of all.
JOIN: dict[str, Callable[[list[npt.NDArray[Any]]], npt.NDArray[Any]]] = {
    "network_in": np.concatenate,
    "network_levels": partial(np.stack, axis=1),
    "network_kinds": partial(np.stack, axis=1),
    "network_hidden": np.stack,
    "network_hidden_bias": np.stack,
    "network_out": np.concatenate,
    "network_out_bias": np.concatenate,
}
_Weights = dict[str, jax.Array]


class _Observed(NamedTuple):
    """What is known before symbols of a group of G channels at n positions are coded, and the symbols.

    Attributes:
        inputs: Inputs of the network [n, inputs], int16.
        value: Predicted values [n, G].
        spread: Chosen spreads [n, G].
        reach: How far an output of 1 moves a value [n, G].
        symbols: The symbols [n, G].
        level: Quality level [n].
        kind: Class of the batch [n].
    """

    inputs: npt.NDArray[Any]
    value: npt.NDArray[Any]
    spread: npt.NDArray[Any]
    reach: npt.NDArray[Any]
    symbols: npt.NDArray[Any]
    level: npt.NDArray[Any]
    kind: npt.NDArray[Any]


def with_network(
    model: PredictiveModel,
    grids: Sequence[npt.NDArray[np.integer]],
    levels: Sequence[int],
    symbols: SymbolFormat,
    *,
    steps: int,
) -> PredictiveModel:
    """Return the model with networks that correct what it expects.

    Args:
        model: The fitted model, without networks.
        grids: Symbols of pictures [h, w, C].
        levels: Quality level of each of them.
        symbols: Their format.
        steps: Steps of training for each group of channels.
    """
    groups = channel_groups(symbols.num_channels)
    ratio = float((model.spread_limits[-1] / model.spread_limits[0]) ** (1 / (len(model.spread_limits) - 1)))
    found: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    for number in tqdm(range(len(groups)), unit="network", leave=False, disable=None):
        observed = _observe(model, grids, levels, groups, number)
        for name, array in _train(observed, symbols.num_levels, ratio, steps, jax.random.key(number)).items():
            found[name].append(array)
    joined = {name: JOIN[name](arrays) for name, arrays in found.items()}
    network = Network(**as_tables(joined, network_layout(symbols)))
    return recounted(dataclasses.replace(model, network=network), grids, levels)


def _observe(
    model: PredictiveModel,
    grids: Sequence[npt.NDArray[np.integer]],
    levels: Sequence[int],
    groups: list[tuple[int, int]],
    number: int,
) -> _Observed:
    """Return what is observed of a group, at positions drawn at random if there are many."""
    first, last = groups[number]
    draw = np.random.default_rng(number)
    parts = []
    num_positions = sum(grid.shape[0] * grid.shape[1] for grid in grids)
    share = min(1.0, MAX_INPUTS / num_inputs(first, last) / num_positions)
    edges = model.spread_limits / 2**WEIGHT_BITS
    middles = np.concatenate([edges[:1] * 0.9, np.sqrt(edges[1:] * edges[:-1]), edges[-1:] * 1.1])
    for grid, level in zip(grids, levels, strict=True):
        known = Known(grid.astype(np.int32))
        before = BeforeInputs(known, groups).of(number)
        for batch in known.batches():
            if batch.first != first:
                continue
            chosen = np.flatnonzero(draw.random(batch.place.size) < share)
            part = batch._replace(place=batch.place[chosen], neighbours=batch.neighbours[:, chosen])
            group = slice(first, last)
            weights = model.mean_weights[level, batch.kind, group], model.spread_weights[level, batch.kind, group]
            terms = known.terms(part, model.sources[group])
            value, spread = weighted(*weights, terms)
            place = places(model.spread_limits, spread)
            own = own_inputs(place, eighths(value), terms)
            parts.append(
                _Observed(
                    np.concatenate([before[:, part.place], own]).T.astype(np.int16),
                    (value / 2**WEIGHT_BITS).T.astype(np.float32),
                    middles[place.astype(int)].T.astype(np.float32),
                    (np.minimum(spread + SMALLEST_MOVE, LARGEST_MOVE) / 2**WEIGHT_BITS).T.astype(np.float32),
                    known.at(part).reshape(last - first, -1).T.astype(np.int32),
                    np.full(len(chosen), level, np.int32),
                    np.full(len(chosen), batch.kind, np.int32),
                )
            )
    return _Observed(*(np.concatenate(of_parts) for of_parts in zip(*parts, strict=True)))


def _train(
    observed: _Observed, num_levels: int, ratio: float, steps: int, key: jax.Array
) -> dict[str, npt.NDArray[Any]]:
    """Return the weights of a group's network after so many steps of Adam; spreads have the given ratio to the next."""
    num_inputs, num_channels = observed.inputs.shape[1], observed.symbols.shape[1]
    key_in, key_hidden, key_order = jax.random.split(key, 3)
    mean = jnp.asarray(observed.inputs[: 2**15].mean(axis=0) / LOG_UNIT, jnp.float32)
    weights = {
        "network_in": jax.random.normal(key_in, (num_inputs, WIDTH)) * num_inputs**-0.5,
        "network_levels": jnp.zeros((num_levels, WIDTH)),
        "network_kinds": jnp.zeros((NUM_CLASSES, WIDTH)),
        "network_hidden": jax.random.normal(key_hidden, (WIDTH, WIDTH)) * WIDTH**-0.5,
        "network_hidden_bias": jnp.zeros((WIDTH,)),
        # The networks correct nothing at first.
        "network_out": jnp.zeros((num_channels, 2, WIDTH)),
        "network_out_bias": jnp.zeros((num_channels, 2)),
    }
    # Optax comes with the extra "train" only.
    begin, update, weights_of = optimizers.adam(lambda step: LEARNING_RATE * jnp.cos(jnp.pi / 2 * step / steps) ** 2)

    @jax.jit
    def advance(step: Any, state: Any, batch: _Observed) -> Any:
        return update(step, jax.grad(_bits)(weights_of(state), mean, ratio, batch), state)

    state = begin(weights)
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key_order)))
    for step in range(steps):
        chosen = draw.integers(0, len(observed.level), BATCH_SIZE)
        state = advance(jnp.asarray(step), state, _Observed(*(array[chosen] for array in observed)))
    weights = weights_of(state)
    trained = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    trained["network_levels"] -= np.asarray(mean, np.float64) @ trained["network_in"]
    trained["network_in"] /= LOG_UNIT
    return trained


def _bits(weights: _Weights, mean: jax.Array, ratio: float, batch: _Observed) -> jax.Array:
    """Return the bits of the symbols of a position, if their distributions were logistic."""
    x = batch.inputs.astype(jnp.float32) / LOG_UNIT - mean[None]
    hidden = x @ weights["network_in"] + weights["network_levels"][batch.level] + weights["network_kinds"][batch.kind]
    hidden = jax.nn.relu(hidden)
    hidden = jax.nn.relu(hidden @ weights["network_hidden"].T + weights["network_hidden_bias"][None])
    out = jnp.einsum("nw,gow->ngo", hidden, weights["network_out"]) + weights["network_out_bias"][None]
    errors = batch.symbols - batch.value - out[..., 0] * batch.reach
    scales = LOGISTIC_SCALE * batch.spread * ratio ** out[..., 1]
    # By symmetry, where both ends of the bin are on the same side of the middle.
    side = jnp.where(errors > 0, -1.0, 1.0)
    probability = jnp.abs(
        jax.nn.sigmoid(side * (errors + 0.5) / scales) - jax.nn.sigmoid(side * (errors - 0.5) / scales)
    )
    surprise = SURPRISES * 0.5 * jnp.exp(-jnp.abs(errors))
    return -jnp.sum(jnp.log2((1 - SURPRISES) * probability + surprise + 1e-30)) / len(batch.level)
