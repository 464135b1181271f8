"""Distribution matching with diffusion models: the terms of a generator and of its critic (Yin et al. 2024).

The critic is a copy of the teacher that learns what the generator's pictures look like. Networks come in as functions
from (x_t, t, condition) to a velocity.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cod_jax.diffusion.flow import expand, flow_target, guide, interpolate, sample_timesteps
from cod_jax.losses.distribution_matching import distribution_matching_loss
from cod_jax.losses.terms import squared_error_per_image

Velocity = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Noised(NamedTuple):
    """A reconstruction at a timestep, with the condition of its original; none of them has a gradient."""

    x_t: Float[Array, "B H W C"]
    t: Float[Array, " B"]
    condition: Float[Array, "B h w hidden"]


def noised(
    reconstruction: Float[Array, "B H W C"],
    condition: Float[Array, "B h w hidden"],
    *,
    time: Float[Array, " B"],
    noise: Float[Array, "B H W C"],
    time_shift: float = 1.0,
) -> Noised:
    """Return reconstructions at random timesteps.

    Args:
        reconstruction: Images in [-1, 1].
        condition: Conditions of their originals.
        time: Standard normal, for the timesteps.
        noise: Standard normal.
        time_shift: See `flow.shift_time`.
    """
    t = sample_timesteps(time, time_shift)
    x_t = interpolate(jax.lax.stop_gradient(reconstruction), noise, t)
    return Noised(x_t, t, jax.lax.stop_gradient(condition))


def guided(
    velocity: Velocity, unconditional: Float[Array, "B h w hidden"] | None, scale: float | Float[Array, ""]
) -> Velocity:
    """Return the velocity with classifier-free guidance, or the conditional one without a null condition.

    Args:
        velocity: The network.
        unconditional: Null conditions of the batch, or of one image; None switches guidance off.
        scale: See `flow.guide`.
    """
    if unconditional is None:
        return velocity

    def with_guidance(x_t: jax.Array, t: jax.Array, condition: jax.Array) -> jax.Array:
        null = jnp.broadcast_to(unconditional, condition.shape).astype(condition.dtype)
        both = (jnp.concatenate(pair) for pair in ((x_t, x_t), (t, t), (condition, null)))
        with_condition, without = jnp.split(velocity(*both), 2)
        return guide(without, with_condition, scale)

    return with_guidance


def matching_loss(
    reconstruction: Float[Array, "B H W C"], at: Noised, *, teacher: Velocity, critic: Velocity
) -> Float[Array, ""]:
    """Return the loss of a generator, whose gradient leads from the critic's prediction to the teacher's.

    Args:
        reconstruction: Images in [-1, 1].
        at: The same with noise.
        teacher: What pictures should look like.
        critic: What the generator's pictures look like.
    """
    remaining = 1 - expand(at.t, at.x_t)
    critic_image = at.x_t + remaining * critic(*at)
    return distribution_matching_loss(reconstruction, at.x_t + remaining * teacher(*at), critic_image)


def critic_loss(
    reconstruction: Float[Array, "B H W C"],
    at: Noised,
    *,
    critic: Velocity,
    prediction: Literal["image", "velocity"],
) -> Float[Array, ""]:
    """Return the flow-matching loss of the critic on reconstructions.

    Args:
        reconstruction: Images in [-1, 1].
        at: The same with noise.
        critic: The network.
        prediction: What it predicts, see `flow.flow_target`.
    """
    target = flow_target(jax.lax.stop_gradient(reconstruction), at.x_t, at.t, prediction)
    return jnp.mean(squared_error_per_image(critic(*at), target))
