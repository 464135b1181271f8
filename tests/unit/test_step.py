import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.losses.terms import masked_mean, weighted_sum
from cod_jax.models.bottlenecks import CodebookTraining
from cod_jax.models.bottlenecks.codebook import Candidates
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from cod_jax.training.optimizer import AdamWConfig, EmaConfig
from cod_jax.training.state import TrainState, init_state, state_axes
from cod_jax.training.step import make_update
from tests.model_fixtures import numpy_params, tiny_model_config

LEARNING_RATE = 1e-3


def make_state(objective: Pretrain, optimizer: optax.GradientTransformation) -> TrainState:
    """A state as `init_state` makes it, with numbers that need no compilation."""
    shapes = jax.eval_shape(lambda: init_state(objective, {"model": optimizer}, jax.random.key(0)))
    params = jax.tree.map(jnp.asarray, numpy_params(shapes.params))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return dataclasses.replace(zeros, params=params, ema=params, key=jax.random.key_data(jax.random.key(1)))


def codebook_of(params: dict) -> jax.Array:
    return params["model"]["codec"]["bottleneck"]["codebook"]


def with_codebook(params: dict, codebook: jax.Array) -> dict:
    model = params["model"]
    return {**params, "model": {**model, "codec": {**model["codec"], "bottleneck": {"codebook": codebook}}}}


@pytest.fixture(scope="module")
def objective() -> Pretrain:
    config = PretrainConfig(null_condition_probability=0.5, one_step_fraction=0.25)
    return Pretrain(config, ObjectiveContext(tiny_model_config()))


@pytest.fixture(scope="module")
def optimizer() -> optax.GradientTransformation:
    return AdamWConfig().build()


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.randint(jax.random.key(2), (4, 32, 32, 3), 0, 256).astype(jnp.uint8)


@pytest.fixture(scope="module")
def updates(objective, optimizer):
    rate = optax.constant_schedule(LEARNING_RATE)
    return {
        n: jax.jit(make_update(objective, objective.updates[0], optimizer, rate, EmaConfig(0.9), n)) for n in (1, 2)
    }


@pytest.mark.slow
def test_accumulated_parts_give_the_update_of_the_whole_batch(objective, optimizer, images, updates):
    state = make_state(objective, optimizer)
    whole_state, whole = updates[1](state, {}, {"image": images})
    parts_state, parts = updates[2](state, {}, {"image": images})
    for name in ("loss", "loss/flow", "loss/reconstruction", "loss/commitment", "gradient_norm"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(parts["codebook/perplexity"], whole["codebook/perplexity"], rtol=1e-5)
    assert whole_state.step == parts_state.step == 1


def test_a_step_that_is_not_finite_changes_the_counters_only(objective, optimizer, images, updates):
    state = make_state(objective, optimizer)
    broken = with_codebook(state.params, codebook_of(state.params).at[0, 0].set(jnp.nan))
    state = dataclasses.replace(state, params=broken, ema=broken)
    after, metrics = updates[1](state, {}, {"image": images})
    assert not np.isfinite(metrics["loss"])
    for name in ("params", "ema", "optimizer", "buffers"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
    assert (after.step, after.skipped, after.consecutive_skipped["model"]) == (1, 1, 1)
    after, _ = updates[1](after, {}, {"image": images})
    assert (after.step, after.skipped, after.consecutive_skipped["model"]) == (2, 2, 2)
    healed = make_state(objective, optimizer).params
    after, _ = updates[1](dataclasses.replace(after, params=healed, ema=healed), {}, {"image": images})
    assert (after.step, after.skipped, after.consecutive_skipped["model"]) == (3, 2, 0)


def test_randomness_follows_the_step_and_nothing_else(objective, optimizer, images, updates):
    state = make_state(objective, optimizer)
    _, first = updates[1](state, {}, {"image": images})
    _, again = updates[1](state, {}, {"image": images})
    _, other = updates[1](dataclasses.replace(state, step=jnp.int32(7)), {}, {"image": images})
    assert first["loss"] == again["loss"]
    assert first["loss"] != other["loss"]


def test_moving_average_follows_the_parameters(objective, optimizer, images, updates):
    state = make_state(objective, optimizer)
    after, _ = updates[1](state, {}, {"image": images})
    before, moved, average = (codebook_of(s) for s in (state.params, after.params, after.ema))
    assert not np.array_equal(before, moved)
    np.testing.assert_allclose(average, 0.9 * before + 0.1 * moved, rtol=1e-6)


@pytest.mark.slow
def test_unused_codes_become_latents_of_the_batch(objective, optimizer, images):
    config = dataclasses.replace(objective.config, bottleneck=CodebookTraining(revive_codes_every=2, revive_usage=0.5))
    objective = Pretrain(config, ObjectiveContext(objective.model_config))
    still = optax.constant_schedule(0.0)
    update = jax.jit(make_update(objective, objective.updates[0], optimizer, still, EmaConfig(0.9)))
    state = make_state(objective, optimizer)
    draws = objective.draw(jax.random.fold_in(jax.random.wrap_key_data(state.key), 0), images.shape)
    keep = draws.drop >= 0.5
    assert 0 < keep.sum() < 4
    model = objective.functional.bind(state.params["model"])
    latents = np.asarray(model.codec.encode(images[keep].astype(jnp.float32) / 255)).reshape(-1, 8)

    after, _ = update(state, {}, {"image": images})
    codes = np.asarray(codebook_of(after.params))
    distances = np.abs(codes[:, None] - latents[None]).max(axis=-1).min(axis=1)
    assert distances.max() < 1e-4
    np.testing.assert_array_equal(codebook_of(after.ema), codes)
    np.testing.assert_allclose(after.buffers["codebook_usage"], 1 / 16)

    # Not due at odd steps; at even ones only what is unused is replaced.
    odd, _ = update(dataclasses.replace(after, step=jnp.int32(1)), {}, {"image": images})
    np.testing.assert_array_equal(codebook_of(odd.params), codes)
    usage = jnp.full((16,), 1.0).at[jnp.array([3, 7])].set(0.0)
    even, _ = update(
        dataclasses.replace(after, step=jnp.int32(2), buffers={"codebook_usage": usage}), {}, {"image": images}
    )
    changed = np.any(np.asarray(codebook_of(even.params)) != codes, axis=1)
    assert np.flatnonzero(changed).tolist() == [3, 7]


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


@pytest.mark.slow
def test_codes_come_from_every_part_of_an_accumulated_batch(objective, optimizer, images):
    config = dataclasses.replace(objective.config, bottleneck=CodebookTraining(revive_codes_every=1))
    objective = Pretrain(config, ObjectiveContext(objective.model_config))
    still = optax.constant_schedule(0.0)
    update = jax.jit(
        make_update(objective, objective.updates[0], optimizer, still, EmaConfig(0.9), accumulation_steps=2)
    )
    state = make_state(objective, optimizer)

    # The first key after which one part keeps no image: its share of the codes stays, the other part's is replaced.
    def leaves_out_the_first_part(key: jax.Array) -> bool:
        keep = np.asarray(objective.draw(jax.random.fold_in(key, 0), images.shape).drop >= 0.5)
        return bool(keep[1::2].any() and not keep[0::2].any())

    key = next(filter(leaves_out_the_first_part, map(jax.random.key, range(100))))
    after, _ = update(dataclasses.replace(state, key=jax.random.key_data(key)), {}, {"image": images})
    changed = np.any(np.asarray(codebook_of(after.params)) != np.asarray(codebook_of(state.params)), axis=1)
    assert changed.tolist() == [False, True] * 8


@pytest.mark.slow
def test_extra_pass_at_zero_is_a_term_of_its_own(objective, images):
    config = dataclasses.replace(objective.config, one_step_weight=2.0, one_step_noise_level=0.0)
    unified = Pretrain(config, ObjectiveContext(objective.model_config))
    params = jax.tree.map(jnp.asarray, numpy_params(jax.eval_shape(lambda: unified.init_params(jax.random.key(0)))))
    draws = unified.draw(jax.random.key(0), images.shape)._replace(drop=jnp.ones((4,)))
    total, output = jax.jit(unified.loss)(params, {}, images, draws)
    model = unified.functional.bind(params["model"])
    image01 = images.astype(jnp.float32) / 255
    z_q = model.codec.quantize(model.codec.encode(image01)).values
    decoded = model.one_step(model.codec.decode(z_q))
    np.testing.assert_allclose(output.terms["one_step"], jnp.mean((decoded - (2 * image01 - 1)) ** 2), rtol=1e-4)
    terms = output.terms
    expected = terms["flow"] + terms["reconstruction"] + 0.25 * terms["commitment"] + 2 * terms["one_step"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_state_axes_have_the_structure_of_the_state(objective, optimizer):
    shapes = jax.eval_shape(lambda: init_state(objective, {"model": optimizer}, jax.random.key(0)))
    axes = state_axes(objective, {"model": optimizer})
    checked = jax.tree.map(lambda leaf, names: len(names) in (0, leaf.ndim), shapes, axes)
    assert all(jax.tree.leaves(checked))
    moments = axes.optimizer["model"][1].mu["model/denoiser/merge/kernel"]
    assert moments == ("mixer", "embed")


def test_average_warms_up_so_that_short_runs_forget_their_start():
    slow, warm = EmaConfig(0.9999), EmaConfig(0.9999, warmup=True)
    assert slow.decay_at(jnp.int32(0)) == pytest.approx(0.9999)
    assert warm.decay_at(jnp.int32(0)) == pytest.approx(0.1)
    assert warm.decay_at(jnp.int32(90)) == pytest.approx(0.91)
    assert warm.decay_at(jnp.int32(10**7)) == pytest.approx(0.9999)


def test_learning_rate_rises_then_falls():
    schedule = AdamWConfig(learning_rate=1e-3, warmup_steps=10, schedule="cosine").build_schedule(110)
    assert float(np.asarray(schedule(0))) == pytest.approx(1e-4)
    assert float(np.asarray(schedule(10))) == pytest.approx(1e-3)
    assert float(np.asarray(schedule(60))) == pytest.approx(0.5 * (1e-3 + 1e-5), rel=1e-3)
    assert float(np.asarray(schedule(110))) == pytest.approx(1e-5)
    assert float(np.asarray(AdamWConfig(learning_rate=2e-3).build_schedule(5)(4))) == pytest.approx(2e-3)


def test_masked_mean_leaves_dropped_images_out():
    per_image, keep = jnp.array([1.0, 2.0, jnp.nan, 5.0]), jnp.array([True, True, False, False])
    assert float(masked_mean(per_image, keep)) == pytest.approx(0.75)


def test_terms_and_weights_must_match():
    with pytest.raises(ValueError, match="vq"):
        weighted_sum({"flow": jnp.float32(1)}, {"flow": 1.0, "vq": 0.5})
    with pytest.raises(ValueError, match="vq"):
        weighted_sum({"flow": jnp.float32(1), "vq": jnp.float32(1)}, {"flow": 1.0})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"null_condition_probability": 1.5}, r"null_condition_probability must be in \[0, 1\], got 1.5"),
        ({"one_step_weight": -1.0}, "one_step_weight must be at least 0, got -1.0"),
        ({"time_shift": 0.0}, "time_shift must be positive, got 0.0"),
    ],
)
def test_objective_refuses_unusable_values(fields, message):
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**fields)
