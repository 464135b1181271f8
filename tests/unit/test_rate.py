"""Pre-training with a factorized bottleneck."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax.models import CodebookConfig, FactorizedConfig, ModelConfig, build_model
from cod_jax.models.bottlenecks import Draws, FactorizedTraining, Quantized
from cod_jax.parallel import make_mesh, tree_shardings
from cod_jax.training.config import TrainConfig, changed_fields
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from cod_jax.training.optimizer import AdamWConfig, EmaConfig
from cod_jax.training.state import init_state
from cod_jax.training.step import make_update
from configs import base, latent, pixel, tiny
from tests.model_fixtures import numpy_params, tiny_model_config
from tests.training_fixtures import small_settings

LAMBDAS = (0.5, 0.125)
# Of the slow test, whose optimizer's schedule ends there.
NUM_STEPS = 200


def factorized_model(num_levels: int = len(LAMBDAS)) -> ModelConfig:
    """The smallest model there is: compiling it is all the time these tests take."""
    model = TrainConfig.from_dict(small_settings()).model
    bottleneck = FactorizedConfig(num_levels=num_levels)
    return dataclasses.replace(model, codec=dataclasses.replace(model.codec, bottleneck=bottleneck))


@pytest.fixture(scope="module")
def objective() -> Pretrain:
    config = PretrainConfig(null_condition_probability=0.5, bottleneck=FactorizedTraining(rate_weights=LAMBDAS))
    return Pretrain(config, ObjectiveContext(factorized_model()))


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.randint(jax.random.key(2), (4, 32, 32, 3), 0, 256).astype(jnp.uint8)


@pytest.mark.slow
def test_steps_train_the_densities_and_the_steps_of_the_levels(objective, images):
    optimizer = AdamWConfig().build()
    shapes = jax.eval_shape(lambda: init_state(objective, {"model": optimizer}, jax.random.key(0)))
    params = jax.tree.map(jnp.asarray, numpy_params(shapes.params))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    state = dataclasses.replace(zeros, params=params, ema=params, key=jax.random.key_data(jax.random.key(1)))
    rate = optax.constant_schedule(1e-3)
    update = jax.jit(make_update(objective, objective.updates[0], optimizer, rate, EmaConfig(0.9), 2))
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
def test_the_rate_of_a_held_out_image_is_that_of_its_symbols(objective, images):
    params = jax.tree.map(jnp.asarray, numpy_params(jax.eval_shape(objective.init_params, jax.random.key(0))))
    key = jax.random.key(7)
    measured = jax.jit(objective.validation_losses)(params, {}, images[:1], key)
    level = objective.draw(key, images[:1].shape).bottleneck.level
    model = objective.functional.bind(params["model"])
    quantized = model.codec.quantize(model.codec.encode(images[:1].astype(jnp.float32) / 255), level=level)
    lambdas = np.asarray(LAMBDAS)[level] / LAMBDAS[0]
    np.testing.assert_allclose(measured["loss/rate"], lambdas * quantized.statistics["bits"] / 32**2, rtol=1e-4)


def test_the_rate_counts_kept_images_by_the_lambda_of_their_level():
    bits_per_pixel = jnp.array([100.0, 200.0, 400.0]) / (16 * 8)
    quantized = Quantized(jnp.zeros((3, 1, 1, 1)), jnp.zeros((3, 1, 1, 1), jnp.int32), bits_per_pixel, {})
    level, keep = jnp.array([0, 1, 1]), jnp.array([True, False, True])
    expected = (100 + 400 * 0.25) / (16 * 8) / 3
    training = FactorizedTraining(rate_weights=LAMBDAS)
    np.testing.assert_allclose(training.term(quantized, level, keep), expected, rtol=1e-6)


def test_draws_cover_all_levels_and_the_width_of_a_bin():
    draws = FactorizedConfig(num_levels=3).draw(jax.random.key(0), (64, 2, 3), 4)
    assert draws.noise is not None
    assert set(np.asarray(draws.level).tolist()) == {0, 1, 2}
    assert draws.noise.shape == (64, 2, 3, 4)
    assert -0.5 <= draws.noise.min() < -0.49
    assert 0.49 < draws.noise.max() <= 0.5
    for bottleneck in (FactorizedConfig(), CodebookConfig()):
        assert bottleneck.draw(jax.random.key(0), (2, 2, 2), 4).level.tolist() == [0, 0]


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


def test_settings_that_do_not_fit_the_bottleneck_are_refused():
    factorized = PretrainConfig(bottleneck=FactorizedTraining())
    with pytest.raises(ValueError, match="one lambda for each of the 2 quality levels, the largest first, got 1"):
        Pretrain(factorized, ObjectiveContext(factorized_model()))
    with pytest.raises(ValueError, match="settings for a bottleneck of kind codebook, got settings for factorized"):
        Pretrain(factorized, ObjectiveContext(tiny_model_config()))
    with pytest.raises(ValueError, match="settings for a bottleneck of kind factorized, got settings for codebook"):
        Pretrain(PretrainConfig(), ObjectiveContext(factorized_model(1)))


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


@pytest.mark.slow
def test_the_rate_of_photographs_falls_as_lambda_grows():
    (low, low_error), (high, high_error) = (rates_after_training((weight,)).pop() for weight in (10.0, 0.1))
    assert low < 0.2 * high
    assert low_error > 1.2 * high_error


@pytest.mark.slow
def test_one_model_has_a_lower_and_a_higher_rate():
    (coarse, coarse_error), (fine, fine_error) = rates_after_training((1.0, 0.1))
    assert coarse < 0.8 * fine
    assert coarse_error > fine_error


@pytest.mark.parametrize("get_config", [tiny.get_config, pixel.get_config, latent.get_config])
def test_recipes_take_either_bottleneck(get_config):
    settings = TrainConfig.from_dict(get_config("1,bottleneck=factorized").to_dict())
    assert settings.model.codec.bottleneck == FactorizedConfig()
    functional = build_model(settings.model)
    tree_shardings(functional.shapes, functional.axes, settings.sharding.rules, make_mesh(settings.mesh))
    assert changed_fields(json.loads(json.dumps(settings.to_dict())), settings.to_dict()) == {}
    with pytest.raises(ValueError, match="no bottleneck 'factorised'; choose one of codebook, factorized"):
        get_config("1,bottleneck=factorised")


def test_settings_of_earlier_checkpoints_are_those_of_today():
    settings = json.loads(json.dumps(TrainConfig.from_dict(tiny.get_config().to_dict()).to_dict()))
    stored = json.loads(json.dumps(settings))
    codec, objective = stored["model"]["codec"], stored["objective"]
    codec["codebook_bits"] = codec.pop("bottleneck")["bits"]
    objective |= objective.pop("bottleneck") | {"kind": "pretrain", "rate_weights": [1.0]}
    assert changed_fields(stored, settings) == {}
    codec["factorized"] = None
    assert changed_fields(stored, settings) == {}
    assert TrainConfig.from_dict(stored) == TrainConfig.from_dict(settings)
