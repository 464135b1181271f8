"""Training state and the logical axes of its arrays."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cod_jax.models.functional import Params, flatten_params
from cod_jax.training.objectives.objective import Objective

# One transformation per update, by the update's name.
Optimizers = Mapping[str, optax.GradientTransformation]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that training changes. Trees of the same form hold shapes, axes or shardings in place of arrays.

    Attributes:
        params: Parameters.
        ema: Moving average of the objective's averaged parts.
        optimizer: State of each update's optimizer, by the update's name.
        buffers: Arrays that no gradient changes.
        step: Number of steps done, int32.
        skipped: Number of steps without finite gradients so far, int32.
        consecutive_skipped: Number of such steps in a row for each update, by its name.
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
    """Return a fresh training state.

    Args:
        objective: The objective.
        optimizers: Transformation of each update's gradients.
        key: Root of all randomness of the run; step n uses fold_in(key, n).
    """
    key_params, key_run, key_buffers = jax.random.split(key, 3)
    params = objective.init_params(key_params)
    return TrainState(
        params=params,
        # A copy, because the step donates its inputs, and no buffer may be donated twice.
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
    """Return a tree like the state with logical axis names in place of each array; () means replicated."""
    shapes = jax.eval_shape(lambda: objective.init_params(jax.random.key(0)))
    optimizer_axes = {
        update.name: optax.tree.map_params(
            optimizers[update.name],
            # An optimizer of several kinds leaves out the parameters of the others.
            lambda leaf, axes: leaf if isinstance(leaf, optax.MaskedNode) else axes,
            jax.eval_shape(optimizers[update.name].init, chosen(shapes, update.trains)),
            chosen(objective.axes, update.trains),
            # Counters and coefficients are whole on every device, as the key is.
            transform_non_params=lambda leaf: ("key",) * leaf.ndim,
            is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
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
    """Return some of the parameters by name, as `flatten_params` gives them."""
    flat = flatten_params(params)
    return {name: flat[name] for name in names}


def replaced(params: Params, values: Mapping[str, Any]) -> Params:
    """Return the parameters with some of them replaced by name; unknown names are ignored."""

    def of(path: tuple[Any, ...], leaf: Any) -> Any:
        return values.get(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)

    return jax.tree_util.tree_map_with_path(of, params)
