"""Normalisation layers; their statistics are float32 for every compute dtype."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-6


def layer_norm(x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
    """Normalise the last axis to mean 0 and variance 1, computed in float32, without parameters; keep the dtype."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + EPSILON)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation of the last axis with a learned scale and bias."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32), axes=("norm",))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32), axes=("norm",))

    def __call__(self, x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
        """Normalise [..., features]."""
        lead = tuple(range(x.ndim - 1))
        y = layer_norm(x.astype(jnp.float32))
        y = y * jnp.expand_dims(self.scale[...], lead) + jnp.expand_dims(self.bias[...], lead)
        return y.astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation of the last axis with a learned scale (Zhang and Sennrich 2019)."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32), axes=("norm",))

    def __call__(self, x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
        """Normalise [..., features]."""
        x32 = x.astype(jnp.float32)
        y = x32 * jax.lax.rsqrt(jnp.mean(x32**2, axis=-1, keepdims=True) + EPSILON)
        return (y * jnp.expand_dims(self.scale[...], tuple(range(x.ndim - 1)))).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Group normalisation over positions and groups of channels (Wu and He 2018).

    Groups whose variance is below `EPSILON`, such as those of an even picture, pass no gradient to the input. Theirs
    would be up to 1000 times the gradient of the output, and the product over a chain of layers would overflow.

    Args:
        features: Channels.
        num_groups: Groups, a divisor of `features`.
    """

    def __init__(self, features: int, num_groups: int):
        self.num_groups = num_groups
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32), axes=("norm",))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32), axes=("norm",))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalise [B, H, W, features]."""

        # Moments per channel first, then per group: the large array keeps its shape, which is about twice as fast on a
        # CPU as reshaping it to groups. Centring before squaring loses no digits where the mean is large.
        def per_group(channel_means: jax.Array) -> jax.Array:
            grouped = jnp.mean(channel_means.reshape(x.shape[0], self.num_groups, -1), axis=-1)
            return jnp.repeat(grouped, x.shape[-1] // self.num_groups, axis=-1)[:, None, None]

        x32 = x.astype(jnp.float32)
        centred = x32 - per_group(jnp.mean(x32, axis=(1, 2)))
        variance = per_group(jnp.mean(centred**2, axis=(1, 2)))
        inverse = jax.lax.rsqrt(variance + EPSILON)
        centred, inverse = (jnp.where(variance > EPSILON, a, jax.lax.stop_gradient(a)) for a in (centred, inverse))
        return (centred * (inverse * self.scale[...][None, None, None]) + self.bias[...][None, None, None]).astype(
            x.dtype
        )
