"""Rectified flow (Liu et al. 2022): t = 0 is noise, t = 1 is data, x_t = t x + (1 - t) noise (spec section 0)."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)

# Smallest 1 - t by which an image prediction is divided; velocity predictions need no bound.
IMAGE_PREDICTION_CLAMP = 0.05


def expand(t: Float[Array, " B"], like: jax.Array) -> jax.Array:
    """t [B] with as many trailing axes of size one as `like` needs."""
    return t.astype(jnp.float32).reshape(t.shape + (1,) * (like.ndim - 1))


def interpolate(x: Float[Array, "B ..."], noise: Float[Array, "B ..."], t: Float[Array, " B"]) -> Float[Array, "B ..."]:
    """x_t = t x + (1 - t) noise, in float32."""
    t = expand(t, x)
    return t * x.astype(jnp.float32) + (1 - t) * noise.astype(jnp.float32)


def image_to_velocity(
    image: Float[Array, "B ..."],
    x_t: Float[Array, "B ..."],
    t: Float[Array, " B"],
    clamp: float = IMAGE_PREDICTION_CLAMP,
) -> Float[Array, "B ..."]:
    """(image - x_t) / max(1 - t, clamp), in float32."""
    return (image.astype(jnp.float32) - x_t.astype(jnp.float32)) / jnp.maximum(1 - expand(t, x_t), clamp)


def shift_time(t: AnyArray, shift: float) -> AnyArray:
    """t / (t + (1 - t) shift): a shift above 1 spends more of the path near the noise."""
    return t / (t + (1 - t) * shift)


def sample_timesteps(normal: Float[Array, " B"], shift: float = 1.0) -> Float[Array, " B"]:
    """Logit-normal timesteps sigmoid(normal), shifted (Esser et al. 2024)."""
    return shift_time(jax.nn.sigmoid(normal.astype(jnp.float32)), shift)
