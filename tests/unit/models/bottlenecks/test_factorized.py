"""The factorized bottleneck and its training settings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.coding.entropy import ChannelTables
from cod_jax.coding.entropy.factorized import check_tables, decode_channels, encode_channels
from cod_jax.coding.symbols import LARGEST_SYMBOL
from cod_jax.models import CodebookConfig, FactorizedConfig, build_model
from cod_jax.models.bottlenecks import FactorizedTraining, Quantized
from cod_jax.models.bottlenecks.densities import (
    quantiles,
)
from cod_jax.models.bottlenecks.factorized import ScalarQuantizer
from cod_jax.models.functional import Functional
from tests.model_fixtures import tiny_model_config

CHANNELS = 3


def quantizer(features: int = CHANNELS, **fields) -> tuple[Functional[ScalarQuantizer], dict]:
    config = FactorizedConfig(**fields)
    functional = Functional(lambda rngs: ScalarQuantizer(config, features, pitch=16, rngs=rngs))
    return functional, functional.init(jax.random.key(3))


BEST = jnp.zeros((2,), jnp.int32)


@pytest.fixture(scope="module")
def z() -> jax.Array:
    return 3 * jax.random.normal(jax.random.key(4), (2, 4, 5, CHANNELS))


@pytest.fixture(scope="module")
def noise() -> jax.Array:
    return jax.random.uniform(jax.random.key(5), (2, 4, 5, CHANNELS), jnp.float32, -0.5, 0.5)


@pytest.mark.parametrize("offset", ["median", "none"])
@pytest.mark.parametrize("num_levels", [1, 3])
def test_symbols_come_back_as_the_values_the_decoder_was_trained_with(z, offset, num_levels):
    functional, params = quantizer(offset=offset, num_levels=num_levels)
    level = jnp.array([0, num_levels - 1])
    bound = functional.bind(params)
    quantized = bound(z, level)
    assert quantized.symbols.dtype == jnp.int32
    np.testing.assert_allclose(bound.lookup(quantized.symbols, level), quantized.values, atol=1e-6)
    step = np.array([2.0 ** ((num_levels - 1) / 2), 1.0])[:, None, None, None]
    assert np.all(np.abs(quantized.values - z) <= step / 2 + 1e-6)
    if offset == "median":
        medians = quantiles(bound.layers(), jnp.zeros((1,)))[:, 0]
        zeros = jnp.zeros((1, 1, 1, CHANNELS), jnp.int32)
        np.testing.assert_allclose(bound.lookup(zeros, level[1:])[0, 0, 0], medians, atol=1e-6)
    else:
        assert np.all(np.asarray(quantized.values) % 1 == 0)


def test_bits_of_symbols_are_those_of_the_coded_bytes(z):
    functional, params = quantizer(num_levels=2)
    bound = functional.bind(params)
    level = jnp.array([0, 1])
    z = jnp.tile(z, (1, 10, 10, 1))
    quantized = bound(z, level)
    arrays = bound.entropy_tables()
    assert {name: len(array) for name, array in arrays.items()} == {"offsets": 2, "lengths": 2, "counts": 2}
    for image in range(2):
        table = ChannelTables(*(arrays[name][image] for name in ("offsets", "lengths", "counts")))
        check_tables(table)
        symbols = np.asarray(quantized.symbols[image])
        data = encode_channels(table, symbols)
        np.testing.assert_array_equal(decode_channels(table, data, rows=40, columns=50), symbols)
        assert 8 * len(data) == pytest.approx(float(quantized.statistics["bits"][image]), rel=1e-2, abs=16)
    np.testing.assert_allclose(quantized.penalty, quantized.statistics["bits"] / (40 * 50 * 16**2), rtol=1e-6)
    # The lower quality has the wider bins, and needs fewer bits.
    fewer, more = (bound(z, jnp.full((2,), n)).penalty for n in (0, 1))
    assert np.all(np.asarray(fewer) < np.asarray(more))


def test_training_adds_noise_of_a_bins_width_or_rounds_with_a_gradient(z, noise):
    functional, params = quantizer(training="noise")
    np.testing.assert_allclose(functional.bind(params)(z, BEST, noise).values, z + noise, rtol=1e-6)
    rounding, _ = quantizer(training="straight_through")
    rounded = rounding.bind(params)(z, BEST, noise)
    np.testing.assert_array_equal(rounded.values, rounding.bind(params)(z, BEST).values)
    np.testing.assert_array_equal(rounded.penalty, functional.bind(params)(z, BEST, noise).penalty)
    for chosen in (functional, rounding):
        gradient = jax.grad(lambda z, chosen=chosen: jnp.sum(chosen.bind(params)(z, BEST, noise).values * z[::-1]))(z)
        np.testing.assert_allclose(gradient, z[::-1] + chosen.bind(params)(z, BEST, noise).values[::-1], atol=1e-5)


def test_steps_of_the_levels_have_the_gradient_of_the_error_they_make(z, noise):
    level = jnp.array([1, 1])
    for training, error in (("noise", noise), ("straight_through", jnp.round(z) - z)):
        functional, params = quantizer(num_levels=2, training=training, offset="none")
        values, gradient = jax.value_and_grad(
            lambda params, functional=functional: jnp.sum(functional.bind(params)(z, level, noise).values)
        )(params)
        assert np.isfinite(values)
        expected = jnp.stack([jnp.zeros(CHANNELS), -jnp.sum(error, axis=(0, 1, 2))])
        np.testing.assert_allclose(gradient["log_gains"], expected, atol=1e-4)


@pytest.mark.slow
def test_latents_in_half_precision_have_the_gradients_of_single_precision(z, noise):
    functional, params = quantizer()
    half = z.astype(jnp.bfloat16)

    def loss(params, z) -> jax.Array:
        quantized: Quantized = functional.bind(params)(z, BEST, noise)
        assert quantized.values.dtype == quantized.penalty.dtype == jnp.float32
        return jnp.sum(quantized.penalty)

    exact, exact_z = jax.grad(loss, argnums=(0, 1))(params, half.astype(jnp.float32))
    gradients, gradient_z = jax.grad(loss, argnums=(0, 1))(params, half)
    jax.tree.map(np.testing.assert_array_equal, gradients, exact)
    assert gradient_z.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient_z, exact_z.astype(jnp.bfloat16))
    # Values as large as half precision can hold have gradients, too.
    gradients, gradient_z = jax.grad(loss, argnums=(0, 1))(params, half * 1e6)
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves((gradients, gradient_z)))


def test_symbols_fit_sixteen_bits_whatever_the_latents():
    functional, params = quantizer(offset="none")
    z = jnp.array([-1e30, 0.0, 1e30])[None, None, None]
    quantized = functional.bind(params)(z, jnp.zeros((1,), jnp.int32))
    np.testing.assert_array_equal(quantized.symbols[0, 0, 0], [-LARGEST_SYMBOL, 0, LARGEST_SYMBOL])
    np.testing.assert_array_equal(quantized.values[0, 0, 0], [-LARGEST_SYMBOL, 0, LARGEST_SYMBOL])
    assert np.isfinite(quantized.penalty).all()


def test_a_model_codes_pictures_at_the_quality_level_of_each():
    functional = build_model(tiny_model_config(bottleneck=FactorizedConfig(num_levels=2)))
    names = set(functional.shapes["codec"]["bottleneck"])
    assert names == {"density", "log_gains"}
    assert set(functional.axes["codec"]["bottleneck"]) == names

    def run(params, image01, level):
        model = functional.bind(params)
        quantized = model.codec.quantize(model.codec.encode(image01), level=level)
        condition = model.codec.decode(model.codec.dequantize(quantized.symbols, level=level))
        return quantized, model.one_step(condition)

    shapes = [jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)]
    quantized, result = jax.eval_shape(run, functional.shapes, *shapes)
    assert quantized.symbols.shape == quantized.values.shape == (2, 2, 3, 8)
    assert quantized.penalty.shape == (2,)
    assert result.shape == (2, 32, 48, 3)


LAMBDAS = (0.5, 0.125)


def test_draws_cover_all_levels_and_the_width_of_a_bin():
    draws = FactorizedConfig(num_levels=3).draw(jax.random.key(0), (64, 2, 3), 4)
    assert draws.noise is not None
    assert set(np.asarray(draws.level).tolist()) == {0, 1, 2}
    assert draws.noise.shape == (64, 2, 3, 4)
    assert -0.5 <= draws.noise.min() < -0.49
    assert 0.49 < draws.noise.max() <= 0.5
    for bottleneck in (FactorizedConfig(), CodebookConfig()):
        assert bottleneck.draw(jax.random.key(0), (2, 2, 2), 4).level.tolist() == [0, 0]


def test_the_rate_counts_kept_images_by_the_lambda_of_their_level():
    bits_per_pixel = jnp.array([100.0, 200.0, 400.0]) / (16 * 8)
    quantized = Quantized(jnp.zeros((3, 1, 1, 1)), jnp.zeros((3, 1, 1, 1), jnp.int32), bits_per_pixel, {})
    level, keep = jnp.array([0, 1, 1]), jnp.array([True, False, True])
    expected = (100 + 400 * 0.25) / (16 * 8) / 3
    training = FactorizedTraining(rate_weights=LAMBDAS)
    np.testing.assert_allclose(training.term(quantized, level, keep), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("rate_weights", "message"),
    [
        ((), "must hold positive finite numbers"),
        ((1.0, 0.0), r"rate_weights must hold positive finite numbers, .* got \(1.0, 0.0\)"),
        ((math.inf,), "must hold positive finite numbers"),
        ((1.0, 1.0), "rate_weights must fall from level to level"),
    ],
)
def test_lambdas_that_cannot_be_are_refused(rate_weights, message):
    with pytest.raises(ValueError, match=message):
        FactorizedTraining(rate_weights=rate_weights)


def test_levels_are_evened_out_by_their_lambdas():
    training = FactorizedTraining(rate_weights=(1.0, 0.25), level_balance=0.5)
    level = jnp.array([0, 1, 1])
    # 1 and 4 to the power of a half, over their mean.
    np.testing.assert_allclose(training.importance(level), np.array([1, 2, 2]) / 1.5, rtol=1e-6)
    quantized = Quantized(jnp.zeros(3), jnp.zeros(3, jnp.int32), jnp.array([6.0, 12.0, 24.0]), {})
    expected = (6 * 1 / 1.5 + 0.25 * 12 * 2 / 1.5 + 0.25 * 24 * 2 / 1.5) / 3
    assert float(training.term(quantized, level, jnp.ones(3, bool))) == pytest.approx(expected)
    plain = FactorizedTraining(rate_weights=(1.0, 0.25))
    np.testing.assert_array_equal(plain.importance(level), np.ones(3))
    for balance in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"level_balance must be in \[0, 1\], got"):
            FactorizedTraining(level_balance=balance)
