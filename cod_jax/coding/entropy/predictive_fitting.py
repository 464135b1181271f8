"""Fit the tables of mode "predictive" to the symbols of pictures.

Fitting may use floats, and may come out differently on another machine: what it makes is frozen as integers.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from cod_jax.coding.entropy.predictive import (
    MAX_UNARY,
    NUM_FRACTIONS,
    NUM_NODES,
    NUM_SPREADS,
    WEIGHT_BITS,
    PredictiveModel,
    coded_by,
    places,
    table_layout,
)
from cod_jax.coding.entropy.predictive_terms import NUM_SOURCES, Known, Terms, channel_groups
from cod_jax.coding.range_coder import TOTAL
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError

# Observations of a channel, level and class that are looked at; more would not change the weights.
MAX_OBSERVATIONS = 2**14
# Inverse variance of the weights of a prediction.
MEAN_PRECISION = 2.0
SPREAD_ITERATIONS = 40
# Positions at which outcomes are counted again once there are networks.
MAX_RECOUNTED = 2**17
# A difference counts as at least this much, so that a channel of zeros has a spread.
SMALLEST_DIFFERENCE = 0.02
# The spreads at which the distributions change are even in the logarithm.
SMALLEST_SPREAD, LARGEST_SPREAD = 0.004, 60.0
# Distributions begin as those of all fractions together, as if seen so often.
POOLED_OBSERVATIONS = 16.0
# Where no two magnitudes differ much, the signed values tell more; found by trial.
_SIGNED_PREFERENCE = 1.5
_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


class _Observed(NamedTuple):
    """Terms and symbols of the channels of a group: [G, terms, n] twice, and [G, n]."""

    means: _Floats
    spreads: _Floats
    symbols: _Integers


def fit_predictive(
    grids: Sequence[npt.NDArray[np.integer]], levels: Sequence[int], symbols: SymbolFormat
) -> PredictiveModel:
    """Fit the model.

    Args:
        grids: Symbols of pictures [h, w, C], of equal or different sizes; the more the better.
        levels: Quality level of each of them.
        symbols: Their format.

    Raises:
        UserError: There are no symbols of one of the levels.
    """
    of_level: dict[int, list[npt.NDArray[np.integer]]] = defaultdict(list)
    for grid, level in zip(grids, levels, strict=True):
        of_level[level].append(grid)
    if missing := sorted(set(range(symbols.num_levels)) - set(of_level)):
        raise UserError(f"there are no symbols of quality {missing[0] + 1} to fit a prior to; give more pictures")
    tables: dict[str, Any] = {name: np.zeros(shape, kind) for name, (shape, kind) in table_layout(symbols).items()}
    tables["sources"] = _choose_sources(grids, symbols.num_channels)
    edges = np.geomspace(SMALLEST_SPREAD, LARGEST_SPREAD, NUM_SPREADS - 1)
    tables["spread_limits"] = np.rint(edges * 2**WEIGHT_BITS).astype(np.int32)
    counts = np.zeros((NUM_SPREADS * NUM_FRACTIONS, NUM_NODES, 2))
    for level, own in sorted(of_level.items()):
        for (kind, first, last), observed in _observations(own, tables["sources"]).items():
            weights = _fit_means(observed)
            errors = np.abs(observed.symbols - _weighted(weights, observed.means))
            spread = _as_weights(_fit_spreads(observed.spreads, errors), np.int32)
            mean = _as_weights(weights, np.int16)
            tables["mean_weights"][level, kind, first:last] = mean
            tables["spread_weights"][level, kind, first:last] = spread
            sums = _weighted(mean, observed.means), _weighted(spread, observed.spreads)
            coded = coded_by(sums[0], places(tables["spread_limits"], sums[1]))
            differences = observed.symbols.reshape(-1) - coded.base
            _count(counts, coded.rows, np.where(coded.mirrored, -differences, differences))
    tables["outcomes"] = _probabilities(counts.reshape(NUM_SPREADS, NUM_FRACTIONS, NUM_NODES, 2))
    return PredictiveModel(**tables)


def recounted(
    model: PredictiveModel, grids: Sequence[npt.NDArray[np.integer]], levels: Sequence[int]
) -> PredictiveModel:
    """Return the model with the outcomes that its own predictions have, on some of the grids.

    Args:
        model: The model; its networks decide where outcomes are counted.
        grids: Symbols of pictures [h, w, C].
        levels: Quality level of each of them.
    """
    counts = np.zeros((NUM_SPREADS * NUM_FRACTIONS, NUM_NODES, 2))
    num_positions = sum(grid.shape[0] * grid.shape[1] for grid in grids)
    pairs = list(zip(grids, levels, strict=True))[:: -(-num_positions // MAX_RECOUNTED)]
    for grid, level in tqdm(pairs, unit="picture", leave=False, disable=None):
        known = Known(grid)
        for batch, coded in model.predictions(known, level):
            differences = known.at(batch) - coded.base
            _count(counts, coded.rows, np.where(coded.mirrored, -differences, differences))
    outcomes = _probabilities(counts.reshape(NUM_SPREADS, NUM_FRACTIONS, NUM_NODES, 2))
    return dataclasses.replace(model, outcomes=outcomes)


def _choose_sources(grids: Sequence[npt.NDArray[np.integer]], num_channels: int) -> npt.NDArray[np.int16]:
    """Return for each channel the channels before its group that tell most about it, in value or in magnitude."""
    every = max(1, sum(grid.size for grid in grids) // num_channels // 2**17)
    values = np.concatenate([grid.reshape(-1, num_channels)[::every] for grid in grids]).astype(np.float64)
    likeness = np.maximum(_SIGNED_PREFERENCE * _correlations(values), _correlations(np.minimum(np.abs(values), 6)))
    sources = np.full((num_channels, NUM_SOURCES), -1, np.int16)
    for first, last in channel_groups(num_channels):
        best = np.argsort(-likeness[first:last, :first], axis=1, kind="stable")[:, :NUM_SOURCES]
        sources[first:last, : best.shape[1]] = best
    return sources


def _correlations(values: _Floats) -> _Floats:
    centred = values - values.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0)) + 1e-9
    return np.asarray(np.abs(centred.T @ centred) / scale / scale[:, None], np.float64)


def _observations(
    grids: Sequence[npt.NDArray[np.integer]], sources: npt.NDArray[np.int16]
) -> dict[tuple[int, int, int], _Observed]:
    """Return what is observed of each class of batches and group of channels (class, first, last)."""
    found: dict[tuple[int, int, int], list[_Observed]] = defaultdict(list)
    numbers: dict[tuple[int, int, int], int] = defaultdict(int)
    for grid in grids:
        known = Known(grid)
        for batch in known.batches():
            key = (batch.kind, batch.first, batch.last)
            if numbers[key] >= MAX_OBSERVATIONS:
                continue
            numbers[key] += batch.place.size
            means, spreads = _in_order(known.terms(batch, sources[batch.first : batch.last]))
            found[key].append(_Observed(means, spreads, known.at(batch).reshape(-1, batch.place.size)))
    return {
        key: _Observed(*(np.concatenate(parts, axis=-1) for parts in zip(*seen, strict=True)))
        for key, seen in found.items()
    }


def _in_order(terms: Terms) -> tuple[_Floats, _Floats]:
    """Return the terms of values [G, NUM_MEAN_TERMS, n] and of spreads [G, NUM_SPREAD_TERMS, n], as weights go."""
    means = np.concatenate([terms.pairs, terms.sources], axis=1)
    energies = np.broadcast_to(terms.energies, (len(means), *terms.energies.shape))
    ones = np.ones_like(means[:, :1])
    return means, np.concatenate([ones, terms.magnitudes, np.abs(terms.sources), energies], axis=1)


def _weighted(weights: npt.NDArray[Any], terms: _Floats) -> _Floats:
    """Return the weighted sums [G, n] of terms [G, terms, n]."""
    return np.asarray(np.einsum("gt,gtn->gn", weights.astype(np.float64), terms), np.float64)


def _fit_means(observed: _Observed) -> _Floats:
    """Return weights [G, terms] of least squared error."""
    means, symbols = observed.means, observed.symbols.astype(np.float64)
    products = means @ means.transpose(0, 2, 1) + MEAN_PRECISION * np.eye(means.shape[1])
    return np.asarray(np.linalg.solve(products, means @ symbols[..., None])[..., 0], np.float64)


def _fit_spreads(terms: _Floats, errors: _Floats) -> _Floats:
    """Return weights [G, terms], at least 0, whose sums are the likeliest mean errors if these are exponential.

    Multiplicative steps for the Itakura-Saito divergence (Févotte and Idier 2011).
    """
    errors = errors + SMALLEST_DIFFERENCE
    mean = errors.mean(axis=-1, keepdims=True)
    weights = mean / terms.shape[1] / (terms.mean(axis=-1) + 1e-3)
    for _ in range(SPREAD_ITERATIONS):
        sums = np.einsum("gt,gtn->gn", weights, terms) + 1e-6
        too_small = np.einsum("gtn,gn->gt", terms, errors / sums**2)
        weights = weights * np.sqrt(too_small / (np.einsum("gtn,gn->gt", terms, 1 / sums) + 1e-9))
    return weights


def _as_weights(weights: _Floats, kind: type[np.signedinteger]) -> npt.NDArray[np.signedinteger]:
    limits = np.iinfo(kind)
    return np.clip(np.rint(weights * 2**WEIGHT_BITS), limits.min, limits.max).astype(kind)


def _count(counts: _Floats, rows: _Integers, differences: _Integers) -> None:
    """Add what is coded at each node: counts are [rows, nodes, 2]."""
    magnitudes = np.abs(differences)

    def add(node: int, chosen: npt.NDArray[np.bool_], bits: npt.NDArray[np.bool_]) -> None:
        ones = np.bincount(rows[chosen & bits], minlength=len(counts))
        counts[:, node, 1] += ones
        counts[:, node, 0] += np.bincount(rows[chosen], minlength=len(counts)) - ones

    add(0, np.ones(len(rows), bool), magnitudes > 0)
    add(1, magnitudes > 0, differences < 0)
    for magnitude in range(1, MAX_UNARY + 1):
        add(1 + magnitude, magnitudes >= magnitude, magnitudes > magnitude)


def _probabilities(counts: _Floats) -> npt.NDArray[np.uint16]:
    """Return the probability of a 1 for counts [spreads, fractions, nodes, 2], in units of 2^-16."""
    pooled = counts.sum(axis=1, keepdims=True)
    shares = (pooled[..., 1] + 0.4) / (pooled.sum(axis=-1) + 0.8)
    ones = (counts[..., 1] + POOLED_OBSERVATIONS * shares) / (counts.sum(axis=-1) + POOLED_OBSERVATIONS)
    return np.clip(np.rint(ones * TOTAL), 1, TOTAL - 1).astype(np.uint16)
