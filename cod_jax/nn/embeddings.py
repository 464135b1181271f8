"""Embeddings of the timestep and of a pixel's place in its patch, and cutting images into patches."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.nn.layers import Linear

TIMESTEP_FEATURES = 256
POSITION_FREQUENCIES = 8


def timestep_features(t: Float[Array, " B"], base: float) -> Float[Array, "B 256"]:
    """Return the cosines, then the sines, of t * base^(-k / 128), k = 0..127; t in [0, 1] is not scaled."""
    half = TIMESTEP_FEATURES // 2
    frequencies = jnp.exp(-np.log(base) * np.arange(half, dtype=np.float32) / half).astype(jnp.float32)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nnx.Module):
    """Two linear layers, with a SiLU between them, on the sinusoidal features of t.

    Args:
        features: Width of the embedding.
        base: Base of the frequencies: 10000 for CoD-Lite, 10 for CoD.
        uniform_bias: Whether biases start with uniform values, as in CoD, instead of zeros.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, features: int, *, base: float, uniform_bias: bool, dtype: str, rngs: nnx.Rngs):
        self.base = base
        make = {
            "dtype": dtype,
            "kernel_init": nnx.initializers.normal(0.02),
            "uniform_bias": uniform_bias,
            "rngs": rngs,
        }
        self.hidden = Linear(TIMESTEP_FEATURES, features, axes=("timestep", "mlp"), **make)
        self.out = Linear(features, features, axes=("mlp", "embed"), **make)

    def __call__(self, t: Float[Array, " B"]) -> Float[Array, "B C"]:
        """Embed t [B] in [0, 1]."""
        return self.out(jax.nn.silu(self.hidden(timestep_features(t, self.base))))


def pixel_position_features(patch_size: int) -> Float[np.ndarray, "P 64"]:
    """Return features of the patch's pixels, row-major: cos(pi px fx) cos(pi py fy) / (1 + fx fy).

    Frequencies are linspace(0, 8, 8), positions linspace(0, 1, patch_size). Column 8 i + j holds the i-th fx and the
    j-th fy.
    """
    positions = np.linspace(0, 1, patch_size)
    frequencies = np.linspace(0, POSITION_FREQUENCIES, POSITION_FREQUENCIES)
    waves = np.cos(np.pi * positions[:, None] * frequencies[None])
    scale = 1 / (1 + frequencies[:, None] * frequencies[None])
    table = waves[None, :, :, None] * waves[:, None, None, :] * scale
    return table.reshape(patch_size**2, POSITION_FREQUENCIES**2).astype(np.float32)


def patchify(x: Float[Array, "B H W C"], patch_size: int) -> Float[Array, "B h w P C"]:
    """Cut [B, H, W, C] into patches [B, H/patch, W/patch, patch * patch, C], pixels row-major."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch_size, patch_size, width // patch_size, patch_size, channels)
    return x.swapaxes(2, 3).reshape(batch, height // patch_size, width // patch_size, patch_size**2, channels)


def unpatchify(x: Float[Array, "B h w P C"], patch_size: int) -> Float[Array, "B H W C"]:
    """Undo `patchify`."""
    batch, rows, columns, _, channels = x.shape
    x = x.reshape(batch, rows, columns, patch_size, patch_size, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * patch_size, columns * patch_size, channels)
