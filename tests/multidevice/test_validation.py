"""Validation measures the images, not how they share devices, and takes no more memory than a step."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from cod_jax.parallel import MeshConfig, batch_sharding, make_mesh
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import Plan, make_plan
from cod_jax.training.validation import Validator
from tests.model_fixtures import numpy_params
from tests.training_fixtures import small_settings

NUM_BLOCKS = 5  # no other size is 5


def build(images: np.ndarray, num_data: int, num_fsdp: int) -> tuple[Validator, Plan]:
    settings = small_settings()
    settings["objective"]["null_condition_probability"] = 0.99
    settings["model"]["denoiser"]["num_blocks"] = NUM_BLOCKS
    config = TrainConfig.from_dict(settings)
    mesh = make_mesh(MeshConfig(num_data, num_fsdp), jax.devices()[: num_data * num_fsdp])
    plan = make_plan(config, mesh)
    validator = Validator(
        plan,
        config.validation,
        images,
        rules=config.sharding.rules,
        batch_size=8,
        key=jax.random.key(0),
        batch=batch_sharding(mesh, config.sharding.batch),
    )
    return validator, plan


def validate(images: np.ndarray, num_data: int, num_fsdp: int) -> dict[str, float]:
    validator, plan = build(images, num_data, num_fsdp)
    params = jax.tree.map(jax.device_put, numpy_params(plan.shapes.params), plan.shardings.params)
    return validator(params, {})[0]


def gathered_shapes(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    """The shapes of what a program puts on all devices whole, in its loops too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "sharding_constraint" and equation.params["sharding"].is_fully_replicated:
            yield equation.invars[0].aval.shape
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from gathered_shapes(inner)


def test_blocks_are_gathered_one_after_the_other():
    validator, plan = build(np.zeros((1, 32, 32, 3), np.uint8), 1, 8)
    images, index = jax.ShapeDtypeStruct((8, 32, 32, 3), np.uint8), jax.ShapeDtypeStruct((8,), np.uint32)
    traced = validator._measure.trace(plan.shapes.params, plan.frozen_shapes, images, index, jax.random.key(0))
    gathered = set(gathered_shapes(traced.jaxpr.jaxpr))
    shardings = jax.tree.leaves(plan.shardings.params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(plan.shapes.params)]
    # Of the stacked kernels, because some stacked vectors are not split and have the shape of others.
    split = {
        shape
        for shape, sharding in zip(shapes, shardings, strict=True)
        if shape[0] == NUM_BLOCKS and len(shape) > 2 and "fsdp" in sharding.spec
    }
    assert split
    assert not gathered & split
    assert {shape[1:] for shape in split} <= gathered


@pytest.mark.slow
def test_results_do_not_depend_on_the_devices_and_keep_every_condition():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    one, eight = validate(images, 1, 1), validate(images, 2, 4)
    assert one["loss/reconstruction"] > 0.01
    assert one.keys() == eight.keys()
    for name, value in one.items():
        # Pictures of eight bits may round to the other side.
        assert eight[name] == pytest.approx(value, rel=1e-3 if name.startswith("psnr") else 1e-5), name
