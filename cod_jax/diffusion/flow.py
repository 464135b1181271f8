"""Rectified flow (Liu et al. 2022): t = 0 is noise, t = 1 is data, x_t = t x + (1 - t) noise.

See docs/method.md, Conventions.
"""

from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)

# Smallest 1 - t by which an image prediction is divided; velocity predictions need no bound.
IMAGE_PREDICTION_CLAMP = 0.05


def expand(t: Float[Array, " B"], like: jax.Array) -> jax.Array:
    """Return t [B] in float32 with as many trailing axes of size one as `like` needs."""
    return t.astype(jnp.float32).reshape(t.shape + (1,) * (like.ndim - 1))


def interpolate(x: Float[Array, "B ..."], noise: Float[Array, "B ..."], t: Float[Array, " B"]) -> Float[Array, "B ..."]:
    """Return x_t = t x + (1 - t) noise, in float32."""
    t = expand(t, x)
    return t * x.astype(jnp.float32) + (1 - t) * noise.astype(jnp.float32)


def image_to_velocity(
    image: Float[Array, "B ..."],
    x_t: Float[Array, "B ..."],
    t: Float[Array, " B"],
    clamp: float = IMAGE_PREDICTION_CLAMP,
) -> Float[Array, "B ..."]:
    """Return (image - x_t) / max(1 - t, clamp), in float32."""
    return (image.astype(jnp.float32) - x_t.astype(jnp.float32)) / jnp.maximum(1 - expand(t, x_t), clamp)


def flow_target(
    x: Float[Array, "B ..."],
    x_t: Float[Array, "B ..."],
    t: Float[Array, " B"],
    prediction: Literal["image", "velocity"],
) -> Float[Array, "B ..."]:
    """Return the velocity that flow matching trains a denoiser to predict, in float32.

    Args:
        x: Clean images, or their latents.
        x_t: The same with noise, see `interpolate`.
        t: Timesteps in [0, 1).
        prediction: Output of the denoiser. The target of an image prediction is clamped in the same way as the
            velocity that is computed from its output.
    """
    return image_to_velocity(x, x_t, t, IMAGE_PREDICTION_CLAMP if prediction == "image" else 0.0)


def guide(
    unconditional: Float[Array, "B ..."], conditional: Float[Array, "B ..."], scale: float | Float[Array, ""]
) -> Float[Array, "B ..."]:
    """Return v_u + scale (v_c - v_u), classifier-free guidance (Ho and Salimans 2022) of two velocities.

    Args:
        unconditional: Velocity under the null condition.
        conditional: Velocity under the condition.
        scale: 0 is unconditional, 1 conditional; above 1 the condition counts more than the model learnt.
    """
    return unconditional + scale * (conditional - unconditional)


def shift_time(t: AnyArray, shift: float) -> AnyArray:
    """Return t / (t + (1 - t) shift): a shift above 1 spends more of the path near the noise."""
    return t / (t + (1 - t) * shift)


def sample_timesteps(normal: Float[Array, " B"], shift: float = 1.0) -> Float[Array, " B"]:
    """Return logit-normal timesteps sigmoid(normal), shifted (Esser et al. 2024).

    Args:
        normal: Standard normal numbers.
        shift: See `shift_time`.
    """
    return shift_time(jax.nn.sigmoid(normal.astype(jnp.float32)), shift)
