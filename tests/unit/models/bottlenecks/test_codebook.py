"""The codebook and its training settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.models import CodebookConfig, FactorizedConfig
from cod_jax.models.bottlenecks import CodebookTraining, Draws
from cod_jax.models.bottlenecks.codebook import Candidates, VectorQuantizer
from cod_jax.models.functional import Functional

BITS, FEATURES = 3, 2
GRID = (2, 4, 5)
CODES = jnp.asarray([[x, y] for x in (-3.0, -1.0, 1.0, 3.0) for y in (-1.0, 1.0)])
LEVEL = jnp.zeros((GRID[0],), jnp.int32)
REVIVED = CodebookTraining(revive_codes_every=1)


@pytest.fixture(scope="module")
def quantizer() -> VectorQuantizer:
    """Return a codebook of eight vectors at known places."""
    config = CodebookConfig(bits=BITS)
    functional = Functional(lambda rngs: config.build(FEATURES, pitch=16, rngs=rngs))
    return functional.bind({"codebook": CODES})


@pytest.fixture(scope="module")
def z() -> jax.Array:
    return 2 * jax.random.normal(jax.random.key(0), (*GRID, FEATURES))


def test_symbols_have_a_channel_axis_and_name_the_nearest_vector(quantizer, z):
    quantized = quantizer(z, LEVEL)
    assert quantized.symbols.shape == (*GRID, 1)
    assert quantized.symbols.dtype == jnp.int32
    distances = np.sum((np.asarray(z)[..., None, :] - np.asarray(CODES)) ** 2, axis=-1)
    np.testing.assert_array_equal(quantized.symbols[..., 0], distances.argmin(axis=-1))
    np.testing.assert_array_equal(quantized.symbols, quantizer.nearest(z, LEVEL))
    np.testing.assert_allclose(quantizer.lookup(quantized.symbols, LEVEL), quantized.values, atol=1e-6)


def test_of_equally_near_vectors_the_first_is_taken(quantizer):
    assert quantizer.nearest(jnp.zeros((1, 1, 1, FEATURES)), LEVEL[:1]).tolist() == [[[[2]]]]


def test_the_gradient_passes_straight_through_to_the_latents(quantizer, z):
    gradient = jax.grad(lambda z: jnp.sum(quantizer(z, LEVEL).values * z[::-1]))(z)
    np.testing.assert_allclose(gradient, z[::-1] + quantizer(z, LEVEL).values[::-1], atol=1e-5)


def test_the_penalty_of_each_picture_is_its_squared_error_times_one_and_a_quarter(quantizer, z):
    error = np.asarray(quantizer(z, LEVEL).values) - np.asarray(z)
    np.testing.assert_allclose(quantizer(z, LEVEL).penalty, 1.25 * np.mean(error**2, axis=(1, 2, 3)), rtol=1e-4)
    # One part pulls the latents to the vectors; the other, a quarter, pulls the vectors to the latents.
    gradient = jax.grad(lambda z: jnp.sum(quantizer(z, LEVEL).penalty))(z)
    np.testing.assert_allclose(gradient, -2 * error / error[0].size, atol=1e-5)


def test_codes_are_counted_for_each_picture(quantizer, z):
    quantized = quantizer(z, LEVEL)
    counts = np.asarray(quantized.statistics["code_counts"])
    symbols = np.asarray(quantized.symbols)
    np.testing.assert_array_equal(counts, [np.bincount(one.ravel(), minlength=2**BITS) for one in symbols])


@pytest.mark.parametrize(
    ("counts", "usage", "perplexity"),
    [([4.0] * 8, 1.0, 8.0), ([3.0, 0, 3.0, 0, 0, 0, 0, 0], 0.25, 2.0), ([0.5] + [0] * 7, 0.125, 1.0)],
)
def test_metrics_are_the_share_of_codes_in_use_and_the_perplexity(counts, usage, perplexity):
    metrics = CodebookConfig(bits=BITS).metrics({"code_counts": jnp.array(counts, jnp.float32)})
    assert float(metrics["codebook/usage"]) == pytest.approx(usage)
    assert float(metrics["codebook/perplexity"]) == pytest.approx(perplexity, rel=1e-5)


def test_draws_have_no_choice_of_quality_and_an_order_of_the_latents():
    draws = CodebookConfig(bits=BITS).draw(jax.random.key(0), GRID, FEATURES)
    assert draws.level.tolist() == [0, 0]
    assert draws.noise is not None
    assert draws.noise.shape == (*GRID, 1)
    assert 0 <= draws.noise.min() <= draws.noise.max() < 1


@pytest.mark.parametrize("keep", [[True, False], [False, True], [True, True]])
def test_candidates_come_from_pictures_that_kept_their_condition(z, keep):
    config = CodebookConfig(bits=BITS)
    draws = config.draw(jax.random.key(1), GRID, FEATURES)
    candidates = REVIVED.candidates(config, z, jnp.array(keep), draws)
    assert candidates is not None
    kept = np.asarray(z)[keep].reshape(-1, FEATURES)
    matches = np.all(np.asarray(candidates.values)[:, None] == kept, axis=-1)
    assert matches.any(axis=1).all()
    assert len(np.unique(matches.argmax(axis=1))) == config.size, "no latent twice while there are others"
    np.testing.assert_array_equal(candidates.valid, 1)


def test_few_latents_are_candidates_for_several_codes(z):
    config, few = CodebookConfig(bits=BITS), z[:, :1, :3]
    draws = config.draw(jax.random.key(1), (2, 1, 3), FEATURES)
    candidates = REVIVED.candidates(config, few, jnp.array([True, False]), draws)
    assert candidates is not None
    found = {tuple(row) for row in np.asarray(candidates.values).tolist()}
    assert found == {tuple(row) for row in np.asarray(few[0]).reshape(-1, FEATURES).tolist()}


def test_without_a_kept_picture_no_candidate_is_valid(z):
    config = CodebookConfig(bits=BITS)
    draws = config.draw(jax.random.key(1), GRID, FEATURES)
    candidates = REVIVED.candidates(config, z, jnp.zeros((2,), bool), draws)
    assert candidates is not None
    np.testing.assert_array_equal(candidates.valid, 0)


def test_there_are_no_candidates_where_codes_are_not_replaced(z):
    config, keep = CodebookConfig(bits=BITS), jnp.ones((2,), bool)
    draws = config.draw(jax.random.key(1), GRID, FEATURES)
    assert CodebookTraining().candidates(config, z, keep, draws) is None
    assert REVIVED.candidates(config, z, keep, Draws(LEVEL)) is None


def test_codes_are_replaced_when_due_where_they_are_unused_and_there_is_a_latent():
    params = {"codebook": jnp.zeros((4, 2))}
    latents = Candidates(jnp.arange(1.0, 9.0).reshape(4, 2), jnp.array([1.0, 1.0, 0.0, 1.0]))
    training = CodebookTraining(revive_codes_every=2, revive_usage=1.0)

    def tend(usage: list[float], step: int) -> tuple[list[float], list[float]]:
        buffers, statistics = {"codebook_usage": jnp.array(usage)}, {"code_counts": jnp.array([8.0, 0.0, 0.0, 0.0])}
        after, average, buffers = training.tend(params, params, buffers, statistics, latents, jnp.int32(step))
        np.testing.assert_array_equal(after["codebook"], average["codebook"])
        return after["codebook"][:, 0].tolist(), buffers["codebook_usage"].tolist()

    # A fresh codebook takes all latents there are, also in the place of codes that this batch uses.
    codes, usage = tend([0, 0, 0, 0], 0)
    assert codes == [1, 3, 0, 7]
    assert [usage[0], usage[1], usage[3]] == [0.25] * 3
    # Later codes that are used stay, and at odd steps all do.
    assert tend([0.5, 0.5, 0, 0], 2)[0] == [0, 0, 0, 7]
    assert tend([0.5, 0.5, 0, 0], 1)[0] == [0, 0, 0, 0]


def test_without_candidates_only_the_shares_move():
    params = {"codebook": jnp.ones((4, 2))}
    buffers, statistics = {"codebook_usage": jnp.full((4,), 0.25)}, {"code_counts": jnp.array([8.0, 0.0, 0.0, 0.0])}
    after, average, moved = CodebookTraining().tend(params, params, buffers, statistics, None, jnp.int32(0))
    assert after is params
    assert average is params
    np.testing.assert_allclose(moved["codebook_usage"], 0.99 * 0.25 + 0.01 * np.array([1, 0, 0, 0]), rtol=1e-6)


def test_fresh_codes_are_unused_and_those_of_a_trained_model_equally_used():
    training, config = CodebookTraining(), CodebookConfig(bits=BITS)
    buffers = training.init_buffers(config)
    assert training.buffer_axes(config).keys() == buffers.keys()
    np.testing.assert_array_equal(buffers["codebook_usage"], np.zeros(2**BITS))
    np.testing.assert_allclose(training.buffers_from(buffers)["codebook_usage"], 1 / 2**BITS)


def test_another_bottleneck_is_refused():
    with pytest.raises(UserError, match="expected a codebook, got a bottleneck of kind factorized"):
        CodebookTraining().init_buffers(FactorizedConfig())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"commitment_weight": -1.0}, r"commitment_weight must be at least 0, got -1\.0"),
        ({"revive_codes_every": -1}, "revive_codes_every must be at least 0, got -1"),
        ({"revive_usage": -1.0}, r"revive_usage must be at least 0, got -1\.0"),
    ],
)
def test_unusable_values_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        CodebookTraining(**fields)
