"""The training state: one nested dict of arrays, and the logical axes of each of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cod_jax.models.functional import Params, flatten_params
from cod_jax.training.objectives.objective import Objective

# One per update, by its name.
Optimizers = Mapping[str, optax.GradientTransformation]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes in training; leaves are arrays, or what stands for them in trees of the same form.

    Attributes:
        params: Parameters.
        ema: Moving average of the objective's averaged parts.
        optimizer: State of each update's optimizer, by the update's name.
        buffers: Arrays that no gradient reaches.
        step: Steps that the state has behind it, int32.
        skipped: Steps without finite gradients so far, int32.
        consecutive_skipped: Such steps in a row of each update, by its name.
        key: Root of all randomness of the run, as `jax.random.key_data`; step n uses fold_in(key, n).
    """

    params: Params
    ema: Params
    optimizer: dict[str, Any]
    buffers: dict[str, Any]
    step: Any
    skipped: Any
    consecutive_skipped: dict[str, Any]
    key: Any


def init_state(objective: Objective, optimizers: Optimizers, key: jax.Array) -> TrainState:
    """A fresh state: parameters, their moving average, optimizers, buffers, counters and the root key.

    Args:
        objective: What is trained.
        optimizers: The updates' transformations of gradients.
        key: Root of all randomness of the run; step n uses fold_in(key, n).
    """
    key_params, key_run, key_buffers = jax.random.split(key, 3)
    params = objective.init_params(key_params)
    return TrainState(
        params=params,
        # A copy, because the step gives its inputs' memory away and may not be handed one buffer twice.
        ema=jax.tree.map(jnp.copy, {part: params[part] for part in objective.averaged}),
        optimizer={
            update.name: optimizers[update.name].init(chosen(params, update.trains)) for update in objective.updates
        },
        buffers=objective.init_buffers(params, key_buffers),
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        consecutive_skipped={update.name: jnp.zeros((), jnp.int32) for update in objective.updates},
        key=jax.random.key_data(key_run),
    )


def state_axes(objective: Objective, optimizers: Optimizers) -> TrainState:
    """A tree like the state with a tuple of logical axis names in place of each array; () is replicated."""
    shapes = jax.eval_shape(lambda: objective.init_params(jax.random.key(0)))
    optimizer_axes = {
        update.name: optax.tree.map_params(
            optimizers[update.name],
            lambda _, axes: axes,
            jax.eval_shape(optimizers[update.name].init, chosen(shapes, update.trains)),
            chosen(objective.axes, update.trains),
            transform_non_params=lambda _: (),
        )
        for update in objective.updates
    }
    return TrainState(
        params=objective.axes,
        ema={part: objective.axes[part] for part in objective.averaged},
        optimizer=optimizer_axes,
        buffers=objective.buffer_axes,
        step=(),
        skipped=(),
        consecutive_skipped={update.name: () for update in objective.updates},
        key=("key",),
    )


def chosen(params: Params, names: Sequence[str]) -> dict[str, Any]:
    """Some of the parameters by name, as `flatten_params` gives them."""
    flat = flatten_params(params)
    return {name: flat[name] for name in names}


def replaced(params: Params, values: Mapping[str, Any]) -> Params:
    """The parameters with some of them replaced by name; names that are not there are ignored."""

    def of(path: tuple[Any, ...], leaf: Any) -> Any:
        return values.get(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)

    return jax.tree_util.tree_map_with_path(of, params)
