import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.coding.entropy import ChannelTables
from cod_jax.coding.entropy.factorized import check_tables, decode_channels, encode_channels
from cod_jax.coding.range_coder import TOTAL
from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.models import FactorizedConfig, ModelConfig, build_model
from cod_jax.models.bottlenecks import Quantized
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
from cod_jax.models.bottlenecks.factorized import ScalarQuantizer
from cod_jax.models.functional import Functional
from tests.model_fixtures import tiny_model_config

CHANNELS = 3
MAX_BITS = -math.log2(SMALLEST_LIKELIHOOD)


@pytest.fixture(scope="module")
def density() -> list[DensityLayer]:
    """A density with a nonlinearity, about 4 wide."""
    generator = np.random.default_rng(0)

    def disturbed(value: jax.Array) -> jax.Array:
        return value + jnp.asarray(generator.normal(0, 0.5, value.shape), jnp.float32)

    return jax.tree.map(disturbed, init_density(jax.random.key(0), CHANNELS))


def logistic(width: float) -> list[DensityLayer]:
    """The logistic density of scale `width` around 0."""
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


def factorized_model(**fields) -> ModelConfig:
    return tiny_model_config(bottleneck=FactorizedConfig(**fields))


def test_a_model_takes_either_bottleneck():
    functional = build_model(factorized_model(num_levels=2))
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


def test_descriptions_survive_json_and_those_with_a_codebook_are_as_before():
    config = factorized_model(num_levels=4, tail_mass=1e-6)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    vector = tiny_model_config()
    assert set(vector.to_dict()["codec"]) == {
        "pitch",
        "input_stride",
        "encoder_width",
        "latent_channels",
        "codebook_bits",
        "decoder_depth",
        "num_groups",
        "attention",
    }
    assert ModelConfig.from_dict(vector.to_dict()) == vector
    assert ModelConfig.from_dict({"codec": {"factorized": None}}) == ModelConfig()


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ({"codebook_bits": 4, "factorized": {}}, "codebook_bits must be 0 beside a factorized bottleneck, got 4"),
        ({"codebook_bits": 0}, "bits must be between 1 and 16, got 0"),
        ({"codebook_bits": 0, "factorized": {"levels": 3}}, "unknown field model.codec.bottleneck.levels"),
        ({"codebook_bits": 0, "factorized": 3}, "model.codec.bottleneck must hold a kind and its fields, got 3"),
        ({"codebook_bits": 0, "factorized": {"num_levels": 65}}, "num_levels must be between 1 and 64, got 65"),
        ({"codebook_bits": 0, "factorized": {"tail_mass": 0.5}}, "tail_mass must be between 1e-9 and 0.1"),
        ({"codebook_bits": 0, "factorized": {"tail_mass": math.nan}}, "tail_mass must be .* got nan"),
        ({"codebook_bits": 0, "factorized": {"training": "none"}}, "training must be one of noise, straight_through"),
        ({"bottleneck": {"kind": "tree"}}, "bottleneck.kind must be one of codebook, factorized, or package.module"),
        ({"bottleneck": {"kind": "os:system"}}, "expected os:system to be a subclass of .*BottleneckConfig"),
        ({"bottleneck": {"kind": "not_here.blocks:Mine"}}, "install not_here, import not_here.blocks first or list"),
    ],
)
def test_unusable_descriptions_are_refused(codec, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict({"codec": codec})


def test_symbols_and_rates_by_design():
    assert factorized_model(num_levels=2).codec.symbols == SymbolFormat(8, -LARGEST_SYMBOL, LARGEST_SYMBOL, 2)
    assert factorized_model().codec.nominal_bits_per_pixel is None
    assert tiny_model_config().codec.symbols == SymbolFormat(1, 0, 15, 1)
    assert tiny_model_config().codec.nominal_bits_per_pixel == 4 / 16**2
