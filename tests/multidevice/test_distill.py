"""Teacher, critic and student on a mesh of eight devices compute what they compute on one."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.models import build_model
from cod_jax.parallel import MeshConfig, batch_sharding, make_mesh
from cod_jax.training.config import TrainConfig
from cod_jax.training.objectives.distill import DistillConfig
from cod_jax.training.plan import compile_step, make_plan
from cod_jax.training.state import TrainState
from configs import base, tiny_one_step
from tests.model_fixtures import numpy_params, tiny_pixel_config
from tests.training_fixtures import SMALL


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    teacher = tmp_path_factory.mktemp("models") / "teacher"
    save_bundle(teacher, tiny_pixel_config(), numpy_params(build_model(tiny_pixel_config()).shapes), training={})
    settings = tiny_one_step.get_config("2")
    base.apply(
        settings,
        SMALL,
        {
            "objective.teacher": str(teacher),
            "model.denoiser.hidden": 16,
            "objective.guidance_scale": 3.0,
            "frozen.sharded": True,
        },
    )
    return TrainConfig.from_dict(settings.to_dict())


def run(config: TrainConfig, sizes: tuple[int, int, int]) -> tuple[TrainState, list[dict]]:
    """The state after one update of each kind, and their metrics."""
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
    batch = batch_sharding(mesh, config.sharding.batch)
    plan = make_plan(config, mesh)
    assert isinstance(config.objective, DistillConfig)
    teacher = load_bundle(config.objective.teacher).params
    params = numpy_params(plan.shapes.params) | plan.objective.parts_from(
        {"teacher": jax.tree.map(np.asarray, teacher)}
    )
    state = dataclasses.replace(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), plan.shapes),
        params=params,
        ema={part: params[part] for part in plan.objective.averaged},
        buffers=plan.objective.init_buffers(jax.tree.map(jnp.asarray, params), jax.random.key(2)),
    )
    state = jax.tree.map(lambda leaf, where: jax.device_put(np.array(leaf), where), state, plan.shardings)
    frozen = jax.device_put({"teacher": teacher}, plan.frozen_shardings)
    images = np.random.default_rng(1).integers(0, 256, plan.batch_shape.shape, np.uint8)
    measured = []
    for number in (1, 0):
        step = compile_step(plan, config, plan.objective.updates[number], batch)
        state, metrics = step(state, frozen, {"image": jax.device_put(images, batch)})
        measured.append(jax.device_get(metrics))
    return jax.device_get(state), measured


@pytest.mark.slow
def test_eight_devices_agree_with_one(config):
    state, metrics = run(config, (1, 1, 1))
    split_state, split_metrics = run(config, (2, 2, 2))
    for one, other in zip(metrics, split_metrics, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_allclose(other[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
    # First moments are the gradients; parameters would compare their signs.
    for update in ("student", "critic"):
        moments = (jax.tree.leaves(each.optimizer[update][1].mu) for each in (state, split_state))
        pairs = list(zip(*moments, strict=True))
        distance = math.sqrt(sum(float(np.sum((a - b) ** 2)) for a, b in pairs))
        assert distance <= 1e-4 * math.sqrt(sum(float(np.sum(a**2)) for a, _ in pairs))
