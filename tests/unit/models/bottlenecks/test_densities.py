"""Learned densities and their integer tables."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.coding.range_coder import TOTAL
from cod_jax.models.bottlenecks.densities import (
    INITIAL_WIDTH,
    LARGEST_TABLE,
    SMALLEST_LIKELIHOOD,
    DensityLayer,
    bits_per_value,
    coding_tables,
    cumulative_logits,
    init_density,
    log_likelihood,
    lower_bound,
    quantiles,
)

CHANNELS = 3


MAX_BITS = -math.log2(SMALLEST_LIKELIHOOD)


@pytest.fixture(scope="module")
def density() -> list[DensityLayer]:
    """Return a density with a nonlinearity, about 4 wide."""
    generator = np.random.default_rng(0)

    def disturbed(value: jax.Array) -> jax.Array:
        return value + jnp.asarray(generator.normal(0, 0.5, value.shape), jnp.float32)

    return jax.tree.map(disturbed, init_density(jax.random.key(0), CHANNELS))


def logistic(width: float) -> list[DensityLayer]:
    """Return the logistic density of scale `width` around 0."""
    matrix = jnp.full((CHANNELS, 1, 1), math.log(math.expm1(1 / width)), jnp.float32)
    return [DensityLayer(matrix, jnp.zeros((CHANNELS, 1)), None)]


def over_channels(values: np.ndarray) -> jax.Array:
    return jnp.tile(jnp.asarray(values, jnp.float32)[:, None], (1, CHANNELS))


def ones(*shape: int) -> jax.Array:
    return jnp.ones((*shape, CHANNELS))


def test_masses_of_all_bins_sum_to_one(density):
    x = over_channels(np.arange(-4000, 4001))
    masses = np.exp(np.asarray(log_likelihood(density, x, ones(1)), np.float64))
    np.testing.assert_allclose(masses.sum(axis=0), 1, atol=1e-4)
    # Bins of another width cover the same density.
    wide = np.exp(np.asarray(log_likelihood(density, x, 4 * ones(1)), np.float64))
    np.testing.assert_allclose(wide[::4].sum(axis=0), 1, atol=1e-4)


def test_a_fresh_density_is_around_zero_and_about_as_wide_as_its_constant():
    fresh = init_density(jax.random.key(1), 200)
    low, middle, high = np.asarray(quantiles(fresh, jnp.array([-1.0, 0.0, 1.0]))).T
    assert np.abs(middle.mean()) < 2
    np.testing.assert_allclose(high - low, 2 * INITIAL_WIDTH, rtol=0.01)


def test_likelihood_does_not_cancel_in_either_tail():
    # s(u) - s(l) of a logistic density, whose tails are exponential.
    x = np.array([-60.0, 60.0])
    expected = -60.0 + math.log(math.expm1(1.0)) - 0.5
    np.testing.assert_allclose(log_likelihood(logistic(1.0), over_channels(x), ones(1)), expected, rtol=1e-5)


def test_gradients_are_numbers_everywhere_and_lead_back_from_the_tails(density):
    x = over_channels(np.array([-3e4, -500.0, -1.0, 0.0, 1.0, 500.0, 3e4]))

    def total(density, x):
        return jnp.sum(bits_per_value(density, x, ones(1)))

    gradients, gradient_x = jax.grad(total, argnums=(0, 1))(density, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, gradient_x)))
    assert np.all(np.asarray(gradient_x)[:2] < 0)
    assert np.all(np.asarray(gradient_x)[-2:] > 0)
    bits = np.asarray(bits_per_value(density, x, ones(1)))
    np.testing.assert_allclose(bits[[0, -1]], MAX_BITS, rtol=1e-6)


@pytest.mark.parametrize(("sign", "passed"), [(1.0, [0.0, 1.0]), (-1.0, [-1.0, -1.0])])
def test_the_bound_lets_gradients_through_that_lead_above_it(sign, passed):
    x = jnp.array([-2.0, 2.0])
    np.testing.assert_array_equal(lower_bound(x, 0.0), [0.0, 2.0])
    np.testing.assert_array_equal(jax.grad(lambda x: sign * jnp.sum(lower_bound(x, 0.0)))(x), passed)


def test_quantiles_are_where_the_logits_are(density):
    logits = jnp.array([-12.0, 0.0, 3.0])
    found = quantiles(density, logits)
    np.testing.assert_allclose(cumulative_logits(density, found.T), over_channels(np.asarray(logits)), atol=1e-4)


@pytest.mark.parametrize(("step", "offset"), [(1.0, 0.0), (0.25, 0.3)])
def test_tables_are_frequencies_in_proportion_to_the_masses(density, step, offset):
    tables = coding_tables(density, step=step * ones(), offset=offset * ones(), tail_mass=1e-3)
    for channel in range(CHANNELS):
        length = tables.lengths[channel]
        counts = tables.counts[channel]
        assert counts.sum() == TOTAL
        assert counts[:length].min() >= 1
        assert not counts[length:].any()
        symbols = tables.offsets[channel] + np.arange(length - 1)
        masses = np.exp(log_likelihood(density, over_channels(symbols * step + offset), step * ones(1)))[:, channel]
        assert 1 - 1e-3 <= masses.sum() <= 1
        assert counts[length - 1] <= 1e-3 * TOTAL + 2
        np.testing.assert_allclose(counts[: length - 1] / TOTAL, masses, atol=2 * length / TOTAL)
        ideal = -np.sum(masses * np.log2(masses))
        assert -np.sum(masses * np.log2(counts[: length - 1] / TOTAL)) == pytest.approx(ideal, rel=2e-3)


def test_a_channel_that_says_nothing_costs_next_to_nothing():
    tables = coding_tables(logistic(0.02), step=ones(), offset=0 * ones(), tail_mass=2.0**-16)
    np.testing.assert_array_equal(tables.offsets, 0)
    np.testing.assert_array_equal(tables.lengths, 2)
    np.testing.assert_array_equal(tables.counts, [[TOTAL - 1, 1]] * CHANNELS)


def test_tables_of_very_wide_densities_are_cut_and_keep_a_frequency_for_every_symbol():
    tables = coding_tables(logistic(1e4), step=ones(), offset=0 * ones(), tail_mass=1e-9)
    assert tables.counts.shape == (CHANNELS, LARGEST_TABLE)
    np.testing.assert_array_equal(tables.counts.sum(axis=1), TOTAL)
    assert tables.counts.min() >= 1
    assert np.all(tables.counts[:, -1] > 0.9 * TOTAL)
