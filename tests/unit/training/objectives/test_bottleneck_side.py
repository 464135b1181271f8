"""Objectives train either bottleneck."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax.models import ConditionCodecConfig, FactorizedConfig, ModelConfig
from cod_jax.models.bottlenecks import CodebookTraining, Draws, FactorizedTraining
from cod_jax.training.config import TrainConfig
from cod_jax.training.objectives.distill import Distill, DistillConfig
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.one_step import OneStep, OneStepConfig
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from cod_jax.training.optimizer import EmaConfig
from cod_jax.training.state import init_state
from cod_jax.training.step import make_update
from configs import base, tiny
from tests.model_fixtures import tiny_model_config, tiny_pixel_config
from tests.objective_fixtures import NETWORKS, PATCH, PLAIN, run, start
from tests.training_fixtures import small_settings

LAMBDAS = (0.5, 0.125)


# Of the slow test, whose optimizer's schedule ends there.
NUM_STEPS = 200


def factorized_model(num_levels: int = len(LAMBDAS)) -> ModelConfig:
    """Return a very small model, because compiling takes most of the time of these tests."""
    model = TrainConfig.from_dict(small_settings()).model
    assert isinstance(model.codec, ConditionCodecConfig)
    bottleneck = FactorizedConfig(num_levels=num_levels)
    return dataclasses.replace(model, codec=dataclasses.replace(model.codec, bottleneck=bottleneck))


@pytest.fixture(scope="module")
def factorized() -> Pretrain:
    config = PretrainConfig(null_condition_probability=0.5, bottleneck=FactorizedTraining(rate_weights=LAMBDAS))
    return Pretrain(config, ObjectiveContext(factorized_model()))


@pytest.mark.slow
def test_steps_train_the_densities_and_the_steps_of_the_levels(factorized, images):
    state, optimizers, _ = start(factorized)
    rate = optax.constant_schedule(1e-3)
    update = jax.jit(make_update(factorized, factorized.updates[0], optimizers["model"], rate, EmaConfig(0.9), 2))
    after, metrics = state, {}
    for _ in range(3):
        after, metrics = update(after, {}, {"image": images})
        assert np.isfinite(metrics["loss"])
        assert np.isfinite(metrics["gradient_norm"])
    assert not any(name.startswith("codebook") for name in metrics)
    assert after.buffers == {}
    before, moved = (s.params["model"]["codec"]["bottleneck"] for s in (state, after))
    jax.tree.map(lambda a, b: np.testing.assert_equal(np.any(np.asarray(a) != np.asarray(b)), True), before, moved)


@pytest.mark.slow
def test_the_rate_of_a_held_out_image_is_that_of_its_symbols(factorized, images):
    params = start(factorized)[0].params
    key = jax.random.key(7)
    measured = jax.jit(factorized.validation_losses)(params, {}, images[:1], key)
    level = factorized.draw(key, images[:1].shape).bottleneck.level
    model = factorized.functional.bind(params["model"])
    quantized = model.codec.quantize(model.codec.encode(images[:1].astype(jnp.float32) / 255), level=level)
    lambdas = np.asarray(LAMBDAS)[level] / LAMBDAS[0]
    np.testing.assert_allclose(measured["loss/rate"], lambdas * quantized.statistics["bits"] / 32**2, rtol=1e-4)


def test_settings_that_do_not_fit_the_bottleneck_are_refused():
    config = PretrainConfig(bottleneck=FactorizedTraining())
    with pytest.raises(ValueError, match="one lambda for each of the 2 quality levels, the largest first, got 1"):
        Pretrain(config, ObjectiveContext(factorized_model()))
    with pytest.raises(ValueError, match="settings for a bottleneck of kind codebook, got settings for factorized"):
        Pretrain(config, ObjectiveContext(tiny_model_config()))
    with pytest.raises(ValueError, match="settings for a bottleneck of kind factorized, got settings for codebook"):
        Pretrain(PretrainConfig(), ObjectiveContext(factorized_model(1)))


@pytest.mark.slow
@pytest.mark.parametrize("num_levels", [1, 2])
def test_a_factorized_bottleneck_pays_for_its_bits_in_both_stages(images, num_levels):
    model = tiny_model_config(bottleneck=FactorizedConfig(num_levels=num_levels))
    training = FactorizedTraining(rate_weights=(2.0, 0.5)[:num_levels])
    first = OneStep(
        OneStepConfig(reconstruction=PLAIN, lora_rank=2, bottleneck=training),
        ObjectiveContext(model, networks=NETWORKS),
    )
    config = DistillConfig(reconstruction=PLAIN, discriminator=PATCH, bottleneck=training)
    second = Distill(config, ObjectiveContext(model, networks=NETWORKS), tiny_pixel_config())
    for objective in (first, second):
        state, _, frozen = start(objective)
        draws = objective.draw(jax.random.key(0), images.shape)
        update = objective.updates[0]
        _, output = jax.eval_shape(update.loss, state.params, state.buffers, frozen, images, draws)
        assert "rate" in output.terms
        assert "commitment" not in output.terms
        assert set(output.statistics) == {"bits", "pixels", "symbols"}
        assert "codebook_usage" not in state.buffers
    assert not any(name.startswith("model/codec/bottleneck/") for name in second.updates[0].trains)
    assert any(name.startswith("model/codec/bottleneck/") for name in first.updates[0].trains)
    if num_levels == 2:
        single = OneStepConfig(reconstruction=PLAIN, bottleneck=FactorizedTraining())
        with pytest.raises(ValueError, match="one lambda for each of the 2 quality levels"):
            OneStep(single, ObjectiveContext(model, networks=NETWORKS))


def photographs_of(num: int, side: int, seed: int) -> np.ndarray:
    """Random crops [num, side, side, 3] of photographs at a third of their size."""
    generator = np.random.default_rng(seed)
    pictures = []
    for picture in (photographs.astronaut(), photographs.coffee(), photographs.chelsea(), photographs.rocket()):
        height, width, _ = picture.shape
        pictures.append(np.asarray(Image.fromarray(picture).resize((width // 3, height // 3))))
    crops = []
    for index in range(num):
        picture = pictures[index % len(pictures)]
        top, left = (generator.integers(0, size - side + 1) for size in picture.shape[:2])
        crops.append(picture[top : top + side, left : left + side])
    return np.stack(crops)


def rates_after_training(rate_weights: tuple[float, ...]) -> list[tuple[float, float]]:
    """Bits per pixel and error of reading photographs from the condition, for each level of a model trained on them."""
    config = tiny.get_config("bottleneck=factorized")
    changes = {
        **{f"model.denoiser.{name}": 1 for name in ("num_blocks", "num_pixel_blocks", "hidden_pixel")},
        "model.codec.bottleneck.num_levels": len(rate_weights),
        "objective.bottleneck.rate_weights": rate_weights,
        "optimizer.learning_rate": 5e-3,
    }
    base.apply(config, changes)
    settings = TrainConfig.from_dict(config.to_dict())
    assert isinstance(settings.objective, PretrainConfig)
    objective = Pretrain(settings.objective, ObjectiveContext(settings.model))
    optimizer = settings.optimizer.build()
    state = jax.jit(lambda key: init_state(objective, {"model": optimizer}, key))(jax.random.key(0))
    schedule = settings.optimizer.build_schedule(NUM_STEPS)
    step = jax.jit(make_update(objective, objective.updates[0], optimizer, schedule, settings.ema), donate_argnums=0)
    for number in range(NUM_STEPS):
        state, _ = step(state, {}, {"image": jnp.asarray(photographs_of(16, 64, number))})

    images = jnp.asarray(photographs_of(16, 64, NUM_STEPS))
    draws = objective.draw(jax.random.key(1), images.shape)._replace(drop=jnp.ones((16,)))
    measure = jax.jit(lambda params, draws: objective.loss(params, {}, images, draws)[1].terms)
    measured = []
    for level, weight in enumerate(rate_weights):
        rounding = Draws(level=jnp.full((16,), level))
        terms = measure(state.params, draws._replace(bottleneck=rounding))
        measured.append((float(terms["rate"]) * rate_weights[0] / weight, float(terms["reconstruction"])))
    return measured


@pytest.mark.soak
def test_the_rate_of_photographs_falls_as_lambda_grows():
    (low, low_error), (high, high_error) = (rates_after_training((weight,)).pop() for weight in (10.0, 0.1))
    assert low < 0.2 * high
    assert low_error > 1.2 * high_error


@pytest.mark.slow
def test_one_model_has_a_lower_and_a_higher_rate():
    (coarse, coarse_error), (fine, fine_error) = rates_after_training((1.0, 0.1))
    assert coarse < 0.8 * fine
    assert coarse_error > fine_error


def with_codebook(training: CodebookTraining) -> Pretrain:
    """Return pre-training that drops the condition of about half of the images."""
    config = PretrainConfig(null_condition_probability=0.5, one_step_fraction=0.25, bottleneck=training)
    return Pretrain(config, ObjectiveContext(tiny_model_config()))


def codebook_of(params: dict) -> jax.Array:
    return params["model"]["codec"]["bottleneck"]["codebook"]


@pytest.mark.slow
def test_unused_codes_become_latents_of_the_batch(images):
    objective = with_codebook(CodebookTraining(revive_codes_every=2, revive_usage=0.5))
    state, optimizers, _ = start(objective)
    still = optax.constant_schedule(0.0)
    update = jax.jit(make_update(objective, objective.updates[0], optimizers["model"], still, EmaConfig(0.9)))
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


@pytest.mark.slow
def test_codes_come_from_every_part_of_an_accumulated_batch(images):
    objective = with_codebook(CodebookTraining(revive_codes_every=1))
    state, optimizers, frozen = start(objective)

    # The first key after which one part keeps no image: its share of the codes stays, the other part's is replaced.
    def leaves_out_the_first_part(key: jax.Array) -> bool:
        keep = np.asarray(objective.draw(jax.random.fold_in(key, 0), images.shape).drop >= 0.5)
        return bool(keep[1::2].any() and not keep[0::2].any())

    key = next(filter(leaves_out_the_first_part, map(jax.random.key, range(100))))
    state = dataclasses.replace(state, key=jax.random.key_data(key))
    after, _ = run(objective, state, optimizers, frozen, images, parts=2, learning_rate=0.0)
    changed = np.any(np.asarray(codebook_of(after.params)) != np.asarray(codebook_of(state.params)), axis=1)
    assert changed.tolist() == [False, True] * 8
