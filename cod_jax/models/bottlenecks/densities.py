"""Learned densities of latents, one per channel, and the integer tables that code them (spec section 6).

A density is given by the logits of its cumulative distribution function, a small monotone network per channel (Ballé et
al. 2018, "Variational image compression with a scale hyperprior", appendix 6.1). All of it is float32.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cod_jax.coding.factorized import LARGEST_SYMBOL, ChannelTables
from cod_jax.coding.range_coder import TOTAL

# Four hidden layers of three units, as in the paper; latents of a fresh encoder vary by about 1, and so do densities.
HIDDEN_WIDTHS = (3, 3, 3, 3)
INITIAL_WIDTH = 1.0
# A bin is never taken for less likely than this, so that no value costs more than 30 bits.
SMALLEST_LIKELIHOOD = 1e-9
# Quantiles are looked for in +- this, by halving; more halvings than float32 can tell apart.
_LARGEST_QUANTILE = 2.0**16
_NUM_HALVINGS = 48
# The most entries of a table: what is further out is coded as escape.
LARGEST_TABLE = 2**11


class DensityLayer(NamedTuple):
    """One layer of the network of every channel.

    Attributes:
        matrix: Weights before the softplus that makes them positive.
        bias: Added.
        factor: Strength of the nonlinearity before the tanh that bounds it; None in the last layer, which has none.
    """

    matrix: Float[Array, "C out in"]
    bias: Float[Array, "C out"]
    factor: Float[Array, "C out"] | None


def init_density(key: jax.Array, channels: int, hidden_widths: Sequence[int] = HIDDEN_WIDTHS) -> list[DensityLayer]:
    """Fresh densities around zero, `INITIAL_WIDTH` wide.

    Args:
        key: Randomness of the biases.
        channels: Number of densities.
        hidden_widths: Units of the hidden layers; without any the density is a logistic one.
    """
    widths = (1, *hidden_widths, 1)
    scale = INITIAL_WIDTH ** (1 / (len(widths) - 1))
    layers = []
    for index, (width_in, width) in enumerate(itertools.pairwise(widths)):
        # Softplus makes 1 / (scale width) of it, and all layers together divide by INITIAL_WIDTH.
        matrix = jnp.full((channels, width, width_in), math.log(math.expm1(1 / (scale * width))), jnp.float32)
        bias = jax.random.uniform(jax.random.fold_in(key, index), (channels, width), jnp.float32, -0.5, 0.5)
        is_last = index == len(hidden_widths)
        layers.append(DensityLayer(matrix, bias, None if is_last else jnp.zeros((channels, width), jnp.float32)))
    return layers


def cumulative_logits(density: Sequence[DensityLayer], x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
    """Logits of the share of each channel's density that lies below x.

    h = softplus(matrix) h + bias, and h + tanh(factor) tanh(h) in all layers but the last: increasing in x.
    """

    def over_positions(values: Float[Array, " C"]) -> jax.Array:
        return jnp.expand_dims(values, tuple(range(x.ndim - 1)))

    # The few hidden units are a list: the program is elementwise then, with channels last, and never a small matrix
    # product, which tensor cores would shorten.
    hidden = [x.astype(jnp.float32)]
    for matrix, bias, factor in density:
        weights = jax.nn.softplus(matrix)
        outputs = []
        for unit in range(bias.shape[1]):
            terms = [over_positions(weights[:, unit, i]) * h for i, h in enumerate(hidden)]
            output = sum(terms, start=over_positions(bias[:, unit]))
            if factor is not None:
                output = output + over_positions(jnp.tanh(factor[:, unit])) * jnp.tanh(output)
            outputs.append(output)
        hidden = outputs
    return hidden[0]


def log_likelihood(
    density: Sequence[DensityLayer], x: Float[Array, "*shape C"], step: Float[Array, "*#shape C"]
) -> Float[Array, "*shape C"]:
    """Natural logarithm of the mass of the bin of width `step` around x.

    Args:
        density: The channels' densities.
        x: Middles of the bins.
        step: Widths of the bins, with as many axes as x.

    Returns:
        log(s(u) - s(l)) for the logits u and l of the bin's ends, as log s(u) + log s(-l) + log(1 - exp(l - u)): it
        cancels on neither side and has a gradient however far x is in the tails.
    """
    x = x.astype(jnp.float32)
    upper, lower = (cumulative_logits(density, x + side * step) for side in (0.5, -0.5))
    # Where float32 cannot tell the ends apart, the bin is one of the smallest, and its gradient must be a number.
    width = jnp.maximum(upper - lower, SMALLEST_LIKELIHOOD)
    return jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-width))


def bits_per_value(
    density: Sequence[DensityLayer], x: Float[Array, "*shape C"], step: Float[Array, "*#shape C"]
) -> Float[Array, "*shape C"]:
    """-log2 of the mass of the bin of width `step` around x, at most -log2 `SMALLEST_LIKELIHOOD`; see `log_likelihood`.

    Beyond that limit the gradient still makes a value cheaper.
    """
    bounded: jax.Array = lower_bound(log_likelihood(density, x, step), math.log(SMALLEST_LIKELIHOOD))
    return bounded / -math.log(2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def lower_bound(x: Float[Array, "*shape"], bound: float) -> Float[Array, "*shape"]:
    """max(x, bound), whose gradient passes below the bound too where descending it increases x."""
    return jnp.maximum(x, bound)


def _lower_bound_forward(x: jax.Array, bound: float) -> tuple[jax.Array, jax.Array]:
    return lower_bound(x, bound), x >= bound


def _lower_bound_backward(_: float, inside: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(inside | (gradient < 0), gradient, 0.0),)


lower_bound.defvjp(_lower_bound_forward, _lower_bound_backward)


def quantiles(density: Sequence[DensityLayer], logits: Float[Array, " T"]) -> Float[Array, "C T"]:
    """Where the cumulative logits of each channel reach these values, by bisection; 0 is the median."""
    edge = jnp.full((logits.size, density[0].bias.shape[0]), _LARGEST_QUANTILE)

    def halve(_: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        is_below = cumulative_logits(density, middle) < logits[:, None]
        return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

    low, high = jax.lax.fori_loop(0, _NUM_HALVINGS, halve, (-edge, edge))
    return ((low + high) / 2).T


def coding_tables(
    density: Sequence[DensityLayer], *, step: Float[Array, " C"], offset: Float[Array, " C"], tail_mass: float
) -> ChannelTables:
    """Frequencies of the symbols k that stand for the bins of width `step` around k step + offset.

    They are integers, made once, when a model is exported, and part of its folder: what is computed in floating point
    differs between devices.

    Args:
        density: The channels' densities.
        step: Width of a channel's bins.
        offset: Middle of a channel's bin 0.
        tail_mass: Share of a density, both tails together, that may be left to the escape.
    """
    edge = math.log(tail_mass / 2) - math.log1p(-tail_mass / 2)
    reached = np.asarray(jax.jit(quantiles)(density, jnp.array([edge, 0.0, -edge], jnp.float32)), np.float64)
    steps, offsets = (np.asarray(values, np.float64)[:, None] for values in (step, offset))
    ends = np.clip(np.rint((reached - offsets) / steps), -LARGEST_SYMBOL, LARGEST_SYMBOL)
    low, middle, high = ends.astype(np.int64).T
    low = np.maximum(low, middle - LARGEST_TABLE // 2 + 1)
    high = np.minimum(high, middle + LARGEST_TABLE // 2 - 1)
    num_symbols = high - low + 1
    symbols = low + np.arange(num_symbols.max())[:, None]
    centres = jnp.asarray(symbols * steps.T + offsets.T, jnp.float32)
    masses = np.exp(np.asarray(jax.jit(log_likelihood)(density, centres, step[None]), np.float64)).T
    counts = np.zeros((len(low), num_symbols.max() + 1), np.int32)
    for channel, num in enumerate(num_symbols):
        inside = masses[channel, :num]
        counts[channel, : num + 1] = _as_counts(np.append(inside, max(0.0, 1 - inside.sum())))
    return ChannelTables(low.astype(np.int32), (num_symbols + 1).astype(np.int32), counts)


def _as_counts(masses: np.ndarray) -> np.ndarray:
    """Positive integers that sum to `TOTAL`, in proportion to the masses but for 1 that each entry gets first."""
    ideal = masses / masses.sum() * (TOTAL - len(masses))
    counts = 1 + np.floor(ideal).astype(np.int64)
    largest_remainders = np.argsort(np.floor(ideal) - ideal, kind="stable")
    counts[largest_remainders[: TOTAL - counts.sum()]] += 1
    return counts
