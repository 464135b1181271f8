"""The training state: one nested dict of arrays, and the logical axes of each of them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from cod_jax.models.functional import Params
from cod_jax.training.objectives.pretrain import Pretrain

TrainState = dict[str, Any]


def init_state(objective: Pretrain, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """A fresh state: parameters, their moving average, optimizer, codebook usage, counters and the root key.

    Args:
      objective: What is trained.
      optimizer: Its transformation of gradients.
      key: Root of all randomness of the run; step n uses fold_in(key, n).
    """
    key_params, key_run = jax.random.split(key)
    params = objective.init_params(key_params)
    return {
        "params": params,
        # A copy, because the step gives its inputs' memory away and may not be handed one buffer twice.
        "ema": jax.tree.map(jnp.copy, params),
        "optimizer": optimizer.init(params),
        "codebook_usage": jnp.zeros((objective.model_config.codec.codebook_size,), jnp.float32),
        "step": jnp.zeros((), jnp.int32),
        "skipped": jnp.zeros((), jnp.int32),
        "consecutive_skipped": jnp.zeros((), jnp.int32),
        "key": jax.random.key_data(key_run),
    }


def state_axes(objective: Pretrain, optimizer: optax.GradientTransformation) -> TrainState:
    """A tree like the state with a tuple of logical axis names in place of each array; () is replicated."""
    shapes = jax.eval_shape(lambda: objective.init_params(jax.random.key(0)))
    optimizer_axes = optax.tree.map_params(
        optimizer,
        lambda _, axes: axes,
        jax.eval_shape(optimizer.init, shapes),
        objective.axes,
        transform_non_params=lambda _: (),
    )
    return {
        "params": objective.axes,
        "ema": objective.axes,
        "optimizer": optimizer_axes,
        "codebook_usage": ("codebook",),
        "step": (),
        "skipped": (),
        "consecutive_skipped": (),
        "key": ("key",),
    }


def codebook_of(params: Params) -> jax.Array:
    """The codebook among the parameters."""
    return params["model"]["codec"]["bottleneck"]["codebook"]


def with_codebook(params: Params, codebook: jax.Array) -> Params:
    """The parameters with another codebook."""
    codec = params["model"]["codec"]
    codec = {**codec, "bottleneck": {**codec["bottleneck"], "codebook": codebook}}
    return {**params, "model": {**params["model"], "codec": codec}}
