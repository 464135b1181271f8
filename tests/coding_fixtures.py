"""Grids of symbols and tables that code them."""

import functools
from typing import Any

import numpy as np

from cod_jax.coding.entropy import ChannelTables, PredictiveModel, Prior, SymbolFormat
from cod_jax.coding.entropy.fitting import fit_prior
from cod_jax.coding.entropy.predictive_fitting import fit_predictive
from cod_jax.coding.entropy.predictive_network import Network, network_layout
from cod_jax.coding.range_coder import TOTAL
from cod_jax.coding.symbols import LARGEST_SYMBOL
from cod_jax.coding.walk import Walk


def codebook(bits: int) -> SymbolFormat:
    """Return the symbols of a codebook."""
    return SymbolFormat(num_channels=1, first=0, last=2**bits - 1)


def channels(num_channels: int, num_levels: int = 1) -> SymbolFormat:
    """Return the symbols of a factorized bottleneck."""
    return SymbolFormat(num_channels, -LARGEST_SYMBOL, LARGEST_SYMBOL, num_levels)


def smooth_grid(rows: int, columns: int, size: int, seed: int = 0) -> np.ndarray:
    """Return symbols of a codebook [rows, columns, 1] that resemble their neighbours."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((rows + 8, columns + 8))
    for axis in (0, 1):
        values = np.apply_along_axis(lambda line: np.convolve(line, np.ones(9) / 3, "valid"), axis, values)
    levels = np.floor((values / 4 + 0.5) * size)
    return np.clip(levels, 0, size - 1).astype(np.int32)[..., None]


@functools.cache
def fitted(size: int) -> Prior:
    """Return the prior of modes static and context for a codebook."""
    grids = [smooth_grid(20, 30, size, seed) for seed in range(1, 9)]
    return fit_prior(grids, np.arange(size, dtype=np.float32)[:, None])


def counts_only(size: int) -> Prior:
    """Return the prior of mode static alone."""
    return Prior({"counts": fitted(size).tables["counts"]})


def channel_tables(num_channels: int = 5, longest: int = 30) -> ChannelTables:
    """Return tables of mode factorized."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, longest + 1, num_channels).astype(np.int32)
    counts = np.zeros((num_channels, longest), np.int32)
    for channel, length in enumerate(lengths):
        counts[channel, :length] = generator.multinomial(TOTAL - length, np.full(length, 1 / length)) + 1
    return ChannelTables(generator.integers(-20, 3, num_channels).astype(np.int32), lengths, counts)


def related_channels(rows: int, columns: int, num_channels: int, level: int = 0, seed: int = 0) -> np.ndarray:
    """Return symbols [rows, columns, num_channels] that resemble their neighbours and the channels before."""
    generator = np.random.default_rng(seed)
    smooth = smooth_grid(rows, columns, 32, seed)[..., 0] - 16
    noise = generator.laplace(size=(rows, columns, num_channels)) * (1 + np.abs(smooth) / 8)[..., None]
    signal = smooth[..., None] * np.cos(np.arange(num_channels))
    return np.rint((signal + noise) * (1 + level) / (1 + np.arange(num_channels))).astype(np.int32)


@functools.cache
def predictive(num_channels: int = 6, num_levels: int = 2) -> PredictiveModel:
    """Return the model of mode predictive that suits `related_channels`."""
    levels = [level for level in range(num_levels) for _ in range(4)]
    grids = [related_channels(24, 32, num_channels, level, seed) for seed, level in enumerate(levels, 1)]
    return fit_predictive(grids, levels, channels(num_channels, num_levels))


@functools.cache
def random_network(num_channels: int, num_levels: int) -> Network:
    """Return networks of mode predictive with random weights, about as large as those of training."""
    generator = np.random.default_rng(12)
    sizes = {"network_in": 300, "network_hidden": 600, "network_out": 1500, "network_out_bias": 2**20}
    layout = network_layout(channels(num_channels, num_levels))
    tables: dict[str, Any] = {
        name: generator.normal(0, sizes.get(name, 2**14), shape).astype(kind) for name, (shape, kind) in layout.items()
    }
    return Network(**tables)


def some_walk(num_steps: int = 12, num_chunks: int = 9, seed: int = 0) -> Walk:
    """Return steps of mode diffc as encoders take them, with 2^12 candidates."""
    generator = np.random.default_rng(seed)
    grades = tuple((60 + np.cumsum(generator.integers(-1, 2, num_steps))).tolist())
    indices = (2 ** (12 * generator.random((num_steps, num_chunks)))).astype(np.int32) - 1
    return Walk(12, 4, grades, indices, b"\x80\x81\x7f\x00")
