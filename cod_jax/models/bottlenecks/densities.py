"""Learned densities of latents, one per channel, and the integer tables that code them.

A small monotone network per channel computes the logits of the cumulative distribution function (Ballé et al. 2018,
"Variational image compression with a scale hyperprior", appendix 6.1). Everything is float32. See docs/method.md,
Bottlenecks.
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

from cod_jax.coding.entropy import ChannelTables
from cod_jax.coding.range_coder import TOTAL
from cod_jax.coding.symbols import LARGEST_SYMBOL

# Four hidden layers of three units, as in the paper. Latents of a fresh encoder vary by about 1, so densities start so
# wide.
HIDDEN_WIDTHS = (3, 3, 3, 3)
INITIAL_WIDTH = 1.0
# Lower bound of a bin's mass, so that no value costs more than 30 bits.
SMALLEST_LIKELIHOOD = 1e-9
# Bisection searches quantiles in +- this range. 48 halvings go beyond the resolution of float32.
_LARGEST_QUANTILE = 2.0**16
_NUM_HALVINGS = 48
# Maximum number of entries in a table. Symbols further out are coded as an escape.
LARGEST_TABLE = 2**11


class DensityLayer(NamedTuple):
    """One layer of every channel's network.

    Attributes:
        matrix: Weights before the softplus that makes them positive.
        bias: Offsets, added after the product.
        factor: Strength of the nonlinearity before the tanh that bounds it; None in the last layer, which is linear.
    """

    matrix: Float[Array, "C out in"]
    bias: Float[Array, "C out"]
    factor: Float[Array, "C out"] | None


def init_density(key: jax.Array, channels: int, hidden_widths: Sequence[int] = HIDDEN_WIDTHS) -> list[DensityLayer]:
    """Return fresh densities around zero, `INITIAL_WIDTH` wide.

    Args:
        key: Randomness of the biases.
        channels: Number of densities.
        hidden_widths: Units of each hidden layer; without hidden layers the density is logistic.
    """
    widths = (1, *hidden_widths, 1)
    scale = INITIAL_WIDTH ** (1 / (len(widths) - 1))
    layers = []
    for index, (width_in, width) in enumerate(itertools.pairwise(widths)):
        # softplus(matrix) is 1 / (scale width), so all layers together divide by INITIAL_WIDTH.
        matrix = jnp.full((channels, width, width_in), math.log(math.expm1(1 / (scale * width))), jnp.float32)
        bias = jax.random.uniform(jax.random.fold_in(key, index), (channels, width), jnp.float32, -0.5, 0.5)
        is_last = index == len(hidden_widths)
        layers.append(DensityLayer(matrix, bias, None if is_last else jnp.zeros((channels, width), jnp.float32)))
    return layers


def cumulative_logits(density: Sequence[DensityLayer], x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
    """Return the logits of each channel's cumulative distribution at x.

    A layer computes h = softplus(matrix) h + bias, and all but the last then h + tanh(factor) tanh(h). The result
    increases with x.
    """

    def over_positions(values: Float[Array, " C"]) -> jax.Array:
        return jnp.expand_dims(values, tuple(range(x.ndim - 1)))

    # Hidden units are a list, so the program is elementwise with channels last. A small matrix product would lose
    # precision on tensor cores.
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
    """Return the natural logarithm of the mass of the bin of width `step` around x.

    Args:
        density: Densities of the channels.
        x: Middles of the bins.
        step: Widths of the bins, with as many axes as x.

    Returns:
        log(s(u) - s(l)) for the logits u and l of the bin's ends, as log s(u) + log s(-l) + log(1 - exp(l - u)). This
        cancels on neither side and has a gradient even far out in the tails.
    """
    x = x.astype(jnp.float32)
    upper, lower = (cumulative_logits(density, x + side * step) for side in (0.5, -0.5))
    # Where float32 cannot tell the ends apart, the bound keeps the gradient finite.
    width = jnp.maximum(upper - lower, SMALLEST_LIKELIHOOD)
    return jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-width))


def bits_per_value(
    density: Sequence[DensityLayer], x: Float[Array, "*shape C"], step: Float[Array, "*#shape C"]
) -> Float[Array, "*shape C"]:
    """Return -log2 of the mass of the bin of width `step` around x, at most -log2 `SMALLEST_LIKELIHOOD`.

    Beyond that limit the gradient still makes a value cheaper. See `log_likelihood` for the arguments.
    """
    bounded: jax.Array = lower_bound(log_likelihood(density, x, step), math.log(SMALLEST_LIKELIHOOD))
    return bounded / -math.log(2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def lower_bound(x: Float[Array, "*shape"], bound: float) -> Float[Array, "*shape"]:
    """Return max(x, bound); below the bound the gradient passes only if gradient descent increases x."""
    return jnp.maximum(x, bound)


def _lower_bound_forward(x: jax.Array, bound: float) -> tuple[jax.Array, jax.Array]:
    return lower_bound(x, bound), x >= bound


def _lower_bound_backward(_: float, inside: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(inside | (gradient < 0), gradient, 0.0),)


lower_bound.defvjp(_lower_bound_forward, _lower_bound_backward)


def quantiles(density: Sequence[DensityLayer], logits: Float[Array, " T"]) -> Float[Array, "C T"]:
    """Return where each channel's cumulative logits reach the given values, found by bisection; 0 gives the median."""
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
    """Return the integer frequencies of the symbols k, which stand for bins of width `step` around k step + offset.

    An export computes them once and stores them with the model, because floating-point results differ between devices.

    Args:
        density: Densities of the channels.
        step: Width of each channel's bins.
        offset: Middle of each channel's bin 0.
        tail_mass: Share of a density, both tails together, that the escape may stand for.
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
    """Return positive integers that sum to `TOTAL`: each entry gets 1, and the masses share the rest in proportion."""
    ideal = masses / masses.sum() * (TOTAL - len(masses))
    counts = 1 + np.floor(ideal).astype(np.int64)
    largest_remainders = np.argsort(np.floor(ideal) - ideal, kind="stable")
    counts[largest_remainders[: TOTAL - counts.sum()]] += 1
    return counts
