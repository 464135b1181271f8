"""Objectives of the one-step codec with small frozen networks, and states to train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.features.trunk import Stage
from cod_jax.models import flatten_params
from cod_jax.models.discriminator import PatchDiscriminatorConfig
from cod_jax.training.objectives.distill import Distill, DistillConfig
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import Objective, ObjectiveContext
from cod_jax.training.objectives.one_step import OneStep, OneStepConfig
from cod_jax.training.objectives.reconstruction import ReconstructionConfig
from cod_jax.training.optimizer import AdamWConfig, EmaConfig
from cod_jax.training.state import TrainState, init_state, state_axes
from cod_jax.training.step import make_update
from tests.model_fixtures import (
    numpy_params,
    tiny_model_config,
    tiny_pixel_config,
)

TRUNK = (Stage((4,)),)
NETWORKS = FrozenNetworks(
    dinov2=DINOv2Config(patch_size=2, width=12, num_blocks=2, num_heads=2, mlp_width=16, table_side=3),
    lpips={"lpips_vgg": TRUNK, "lpips_alex": TRUNK},
)
PLAIN = ReconstructionConfig(
    lpips_vgg_weight=0.0, lpips_alex_weight=0.0, structural_weight=1.0, feature_alignment_weight=0.0
)
PUBLISHED = ReconstructionConfig(alignment_block=1)
PATCH = PatchDiscriminatorConfig(widths=(4, 8))


def one_step(**fields) -> OneStep:
    """Return the objective of the first stage for a tiny model."""
    config = OneStepConfig(**{"reconstruction": PLAIN, "lora_rank": 2, "lora_alpha": 2.0, **fields})
    return OneStep(config, ObjectiveContext(tiny_model_config(), networks=NETWORKS))


def distill(**fields) -> Distill:
    """Return the objective of the second stage for a tiny model and a tiny teacher."""
    config = DistillConfig(**{"reconstruction": PLAIN, "critic_updates": 2, "discriminator": PATCH, **fields})
    return Distill(config, ObjectiveContext(tiny_model_config(), networks=NETWORKS), tiny_pixel_config())


def start(objective: Objective) -> tuple[TrainState, dict, dict]:
    """Return a state as `init_state` makes it but without compilation, the optimizers, and frozen networks."""
    optimizers = {update.name: AdamWConfig().build() for update in objective.updates}
    shapes = jax.eval_shape(lambda: init_state(objective, optimizers, jax.random.key(0)))
    checked = jax.tree.map(lambda leaf, axes: len(axes) in (0, leaf.ndim), shapes, state_axes(objective, optimizers))
    assert all(jax.tree.leaves(checked))
    params = jax.tree.map(jnp.asarray, numpy_params(shapes.params))
    if "lora" in params:
        second = {name: jnp.asarray(np.zeros(part["b"].shape, np.float32)) for name, part in params["lora"].items()}
        params["lora"] = {name: {**part, "b": second[name]} for name, part in params["lora"].items()}
    networks = {name: network.shapes for name, network in objective.frozen.items()}
    frozen = jax.tree.map(jnp.asarray, numpy_params(networks, seed=3))
    params |= objective.parts_from(frozen)
    # From numpy, because `jnp.zeros` compiles a program for each shape.
    zeros = jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), shapes)
    state = dataclasses.replace(
        zeros,
        params=params,
        ema={part: params[part] for part in objective.averaged},
        buffers=objective.init_buffers(params, jax.random.key(5)),
        key=jax.random.key_data(jax.random.key(1)),
    )
    return state, optimizers, frozen


def run(
    objective, state, optimizers, frozen, images, number=0, parts=1, ema_warmup=False, learning_rate=1e-2
) -> tuple[TrainState, dict]:
    """Run one step of an update, and return the state after it and its metrics."""
    update = objective.updates[number]
    rate = optax.constant_schedule(learning_rate)
    step = make_update(objective, update, optimizers[update.name], rate, EmaConfig(0.9, ema_warmup), parts)
    return jax.jit(step)(state, frozen, {"image": images})


def changed(before: dict, after: dict) -> set[str]:
    """Return the names of the arrays that differ."""
    before, after = flatten_params(before), flatten_params(after)
    return {name for name in before if not np.array_equal(before[name], after[name])}
