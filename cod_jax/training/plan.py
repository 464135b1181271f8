"""Plan of a run before any memory is allocated: shapes, shardings, and the compiled step."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from cod_jax.models.functional import Params
from cod_jax.parallel import gathered, gathering_blocks, replicated, tree_shardings
from cod_jax.training.config import TrainConfig
from cod_jax.training.flops import count_flops
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import Objective, ObjectiveContext, Update
from cod_jax.training.state import Optimizers, TrainState, chosen, init_state, replaced, state_axes
from cod_jax.training.step import Batch, Metrics, make_update

# XLA uses vectors of 256 bits unless it is told to use all that a processor has.
_VECTOR_WIDTH = "xla_cpu_prefer_vector_width"
_CPU_OPTIONS: dict[str, Any] = {_VECTOR_WIDTH: 512}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Arrays of a run and their shardings.

    Attributes:
        objective: The objective.
        optimizers: Transformation of each update's gradients.
        shapes: Abstract training state.
        shardings: Shardings of the state.
        frozen_shapes: Abstract parameters of the frozen networks, in the dtype of their computation.
        frozen_axes: Logical axis names of these parameters.
        frozen_shardings: Shardings of them.
        batch_shape: Abstract batch of images.
    """

    objective: Objective
    optimizers: Optimizers
    shapes: TrainState
    shardings: Any
    frozen_shapes: Params
    frozen_axes: Params
    frozen_shardings: Any
    batch_shape: jax.ShapeDtypeStruct

    def init(self, key: jax.Array) -> TrainState:
        """Return a fresh training state."""
        return init_state(self.objective, self.optimizers, key)


def make_plan(config: TrainConfig, mesh: Mesh | AbstractMesh) -> Plan:
    """Plan a run on a mesh, whose devices do not have to exist.

    Raises:
        UserError: The settings do not fit each other, a parameter cannot be split by the rules, or the teacher is
            missing.
    """
    objective = build_objective(config)
    optimizers = {update.name: update.optimizer.build() for update in objective.updates}
    shapes = jax.eval_shape(lambda key: init_state(objective, optimizers, key), jax.random.key(0))
    rules = config.sharding.rules
    dtype = jnp.dtype(config.frozen.dtype)
    frozen_shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype),
        {name: network.shapes for name, network in objective.frozen.items()},
    )
    frozen_axes = {name: network.axes for name, network in objective.frozen.items()}
    frozen_rules = rules if config.frozen.sharded else dict.fromkeys(rules)
    size = config.data.image_size
    return Plan(
        objective=objective,
        optimizers=optimizers,
        shapes=shapes,
        shardings=tree_shardings(shapes, state_axes(objective, optimizers), rules, mesh),
        frozen_shapes=frozen_shapes,
        frozen_axes=frozen_axes,
        frozen_shardings=tree_shardings(frozen_shapes, frozen_axes, frozen_rules, mesh),
        batch_shape=jax.ShapeDtypeStruct((config.batch_size, size, size, 3), jnp.uint8),
    )


def build_objective(config: TrainConfig) -> Objective:
    """Return the objective of a run.

    Raises:
        UserError: The settings do not fit each other, or the teacher is missing.
    """
    return config.objective.build(
        ObjectiveContext(
            config.model,
            config.compute,
            config.optimizer,
            FrozenNetworks(config.frozen.dtype),
            config.data.image_size,
        )
    )


def compile_step(
    plan: Plan, config: TrainConfig, update: Update, batch: NamedSharding
) -> Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]:
    """Compile the step of an update from shapes alone; the step donates its state.

    Args:
        plan: Plan of the run.
        config: Settings of the run.
        update: One of the updates of the plan's objective.
        batch: Sharding of a batch, on the plan's mesh.
    """
    step = make_update(
        plan.objective,
        update,
        plan.optimizers[update.name],
        update.optimizer.build_schedule(config.total_steps),
        config.ema,
        config.accumulation_steps,
        gather=lambda params, frozen: (
            gathered(params, plan.shardings.params, plan.objective.axes),
            gathered(frozen, plan.frozen_shardings, plan.frozen_axes),
        ),
    )
    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(plan.shardings, plan.frozen_shardings, {"image": batch}),
        out_shardings=(plan.shardings, replicated(batch.mesh)),
    )
    with gathering_blocks(config.sharding.rules, batch.mesh):
        lowered = jitted.lower(plan.shapes, plan.frozen_shapes, {"image": plan.batch_shape})
    on_cpu = all(device.platform == "cpu" for device in batch.device_set)
    is_chosen = _VECTOR_WIDTH in os.environ.get("XLA_FLAGS", "")
    return lowered.compile(compiler_options=_CPU_OPTIONS if on_cpu and not is_chosen else None)


def step_flops(plan: Plan, config: TrainConfig) -> list[int]:
    """Return the operations of one gradient of each update, see `flops.count_flops`.

    Work that is repeated to save memory does not count, so remat is off. Only the codec's attention on maps larger than
    a window is always repeated and counts twice.
    """
    # Float32 avoids fused attention, because the count would not see its products.
    compute = dataclasses.replace(config.compute, remat="none", dtype="float32")
    frozen = dataclasses.replace(config.frozen, dtype="float32")
    objective = build_objective(dataclasses.replace(config, compute=compute, frozen=frozen))
    return [_flops_of(plan, update) for update in objective.updates]


def _flops_of(plan: Plan, update: Update) -> int:
    shapes, images = plan.shapes, plan.batch_shape
    draws = jax.eval_shape(lambda key: plan.objective.draw(key, images.shape), jax.random.key(0))

    def gradients(trained: Params, params: Params, *rest: Any) -> Any:
        return jax.grad(lambda trained: update.loss(replaced(params, trained), *rest), has_aux=True)(trained)

    trained = chosen(shapes.params, update.trains)
    return count_flops(gradients, trained, shapes.params, shapes.buffers, plan.frozen_shapes, images, draws)
