"""Validation measures the images, not how they share devices."""

import jax
import numpy as np
import pytest

from cod_jax.parallel import MeshConfig, batch_sharding, make_mesh
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import make_plan
from cod_jax.training.validation import Validator
from tests.model_fixtures import numpy_params
from tests.training_fixtures import small_settings


def validate(num_devices: int, images: np.ndarray) -> dict[str, float]:
    settings = small_settings()
    settings["objective"]["null_condition_probability"] = 0.99
    config = TrainConfig.from_dict(settings)
    mesh = make_mesh(MeshConfig(), jax.devices()[:num_devices])
    plan = make_plan(config, mesh)
    validator = Validator(
        plan.objective,
        config.validation,
        images,
        batch_size=8,
        key=jax.random.key(0),
        mesh=mesh,
        param_shardings=plan.shardings.ema,
        frozen_shardings=plan.frozen_shardings,
        batch=batch_sharding(mesh, config.sharding.batch),
    )
    params = jax.tree.map(jax.device_put, numpy_params(plan.shapes.ema), plan.shardings.ema)
    return validator(params, {})[0]


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_devices_and_keep_every_condition():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    one, eight = validate(1, images), validate(8, images)
    assert one["loss/reconstruction"] > 0.01
    assert one.keys() == eight.keys()
    for name, value in one.items():
        # Pictures of eight bits may round to the other side.
        assert eight[name] == pytest.approx(value, rel=1e-3 if name.startswith("psnr") else 1e-5), name
