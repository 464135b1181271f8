"""Measurements of a validation that are not losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.evaluation.metric_table import named_metrics
from cod_jax.losses.similarity import ms_ssim_per_image
from cod_jax.parallel import MeshConfig, batch_sharding, make_mesh
from cod_jax.training.config import TrainConfig
from cod_jax.training.config_files import read_settings
from cod_jax.training.plan import make_plan
from cod_jax.training.validation import Validator, saving_if_it_fails, texture_per_image
from tests.model_fixtures import gradient_image, numpy_params
from tests.training_fixtures import CONFIG, SMALL


def test_texture_is_the_mean_difference_of_neighbours():
    stripes = np.zeros((1, 4, 6, 3), np.uint8)
    stripes[:, ::2] = 20
    np.testing.assert_allclose(texture_per_image(jnp.asarray(np.concatenate([stripes, 0 * stripes]))), [10, 0])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (True, "(in a metric); the steps before it are saved"),
        (False, "(in a metric); the steps before it may not be saved yet"),
        (UserError("no room"), "(in a metric); saving the steps before it failed too (no room)"),
    ],
)
def test_a_validation_that_fails_saves_the_state_and_stays_the_error(caplog, answer: bool | UserError, text: str):
    saved = []

    def save(measured: None) -> bool:
        saved.append(measured)
        if isinstance(answer, UserError):
            raise answer
        return answer

    with pytest.raises(ZeroDivisionError, match="in a metric"), saving_if_it_fails(save):
        raise ZeroDivisionError("in a metric")
    assert saved == [None]
    assert text in caplog.text
    with saving_if_it_fails(save):
        pass
    with pytest.raises(ZeroDivisionError), saving_if_it_fails(None):
        raise ZeroDivisionError
    assert saved == [None]


@pytest.fixture(scope="module")
def validated() -> tuple[dict[str, float], np.ndarray]:
    """Validate a small model with two quality levels on one picture; gives the numbers and the grid."""
    fields = {name: value for name, value in SMALL.items() if "bottleneck.bits" not in name}
    fields |= {
        "model.codec.bottleneck.num_levels": 2,
        "objective.bottleneck.rate_weights": "(1.0, 0.5)",
        "validation.num_sampling_steps": 2,
    }
    changes = [f"--config.{name}={value}" for name, value in fields.items()]
    config = TrainConfig.from_dict(read_settings(f"{CONFIG}:bottleneck=factorized", changes))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    plan = make_plan(config, mesh)
    validator = Validator(
        plan,
        config.validation,
        gradient_image(32, 32)[None],
        rules=config.sharding.rules,
        batch_size=1,
        key=jax.random.key(0),
        batch=batch_sharding(mesh, config.sharding.batch),
        metrics=named_metrics(["cod_jax.evaluation.metric_table:SquaredError"]),
    )
    scalars, pictures = validator(numpy_params(plan.shapes.params), {})
    assert sorted(validator.names(plan.shapes.params, plan.frozen_shapes)) == sorted(scalars)
    return scalars, pictures["original_one_step_sampled"]


@pytest.mark.slow
def test_further_metrics_compare_with_the_reconstruction_in_one_step(validated):
    scalars, grid = validated
    original, decoded, _ = np.split(grid.astype(np.float64), 3, axis=1)
    assert scalars["lower/mse"] == pytest.approx(((original - decoded) ** 2).mean())


@pytest.mark.slow
def test_ms_ssim_and_texture_are_those_of_the_pictures(validated):
    scalars, grid = validated
    original, *decoded = np.split(grid.astype(np.float64), 3, axis=1)
    for name, picture in zip(("one_step", "sampled"), decoded, strict=True):
        pair = [image[None] / 127.5 - 1 for image in (picture, original)]
        assert scalars[f"ms_ssim_{name}"] == pytest.approx(float(ms_ssim_per_image(*pair)[0]), abs=1e-4)
        assert scalars[f"texture_{name}"] > 0
    assert scalars["texture"] == pytest.approx(float(texture_per_image(jnp.asarray(original[None], jnp.uint8))[0]))


@pytest.mark.slow
def test_every_quality_level_has_its_rate_and_psnr(validated):
    scalars, _ = validated
    for name in ("psnr_one_step", "estimated_bits_per_pixel", "bits_per_symbol"):
        assert scalars[f"quality_2/{name}"] == pytest.approx(scalars[name])
    assert scalars["quality_1/estimated_bits_per_pixel"] != scalars["estimated_bits_per_pixel"]
    # 4 channels for 16 x 16 pixels.
    assert scalars["bits_per_symbol"] == pytest.approx(scalars["estimated_bits_per_pixel"] * 256 / 4)
