"""The transformer block of pixel and latent CoD: rotary attention and SwiGLU, modulated and gated.

See docs/method.md, Denoisers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from cod_jax.nn.attention import multi_head_attend
from cod_jax.nn.layers import Linear, modulate
from cod_jax.nn.norms import RMSNorm

# Coordinates run from 0 to this value over pictures of every size, as in the published models.
ROPE_EXTENT = 16.0
ROPE_BASE = 10000.0
# Initialiser of a kernel [in, 3, out].
_qkv_fan_in_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=0, out_axis=(1, 2))


def rotary_angles(rows: Any, columns: Any, head_features: int) -> Float[Array, "N half"]:
    """Return the rotation angle of each pair of channels at each position, row-major.

    The angles of x and y alternate, frequency by frequency. Coordinates are linspace(0, 16, rows or columns),
    frequencies 10000^(-4k / head_features). Rows and columns are numbers or symbols of `jax.export`.
    """
    frequencies = ROPE_BASE ** (-np.arange(0, head_features, 4) / head_features)
    x = jnp.broadcast_to(_coordinates(columns)[None], (rows, columns))
    y = jnp.broadcast_to(_coordinates(rows)[:, None], (rows, columns))
    coordinates = jnp.stack([x, y], axis=-1).reshape(rows * columns, 1, 2)
    angles = coordinates * jnp.asarray(frequencies, jnp.float32)[None, :, None]
    return angles.reshape(rows * columns, head_features // 2)


def _coordinates(size: Any) -> Float[Array, " N"]:
    """Return linspace(0, 16, size), also for symbolic sizes, which `jnp.linspace` does not take."""
    num_steps = jnp.asarray(size, jnp.float32) - 1
    return ROPE_EXTENT * jnp.arange(size, dtype=jnp.float32) / jnp.maximum(num_steps, 1)


def rotate(x: Float[Array, "B N H D"], angles: Float[Array, "N half"]) -> Float[Array, "B N H D"]:
    """Rotate neighbouring pairs of channels by their angles (Su et al. 2021), in float32."""
    cosines, sines = (f(angles)[None, :, None, :] for f in (jnp.cos, jnp.sin))
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([first * cosines - second * sines, first * sines + second * cosines], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


class RotaryAttention(nnx.Module):
    """Multi-head attention over all positions of a grid, with normalised and rotated queries and keys.

    Args:
        features: Channels.
        num_heads: Number of heads. Each has a multiple of 4 channels.
        dtype: Dtype of the computation.
        kernel_init: Initialiser of the output projection. Queries, keys and values start uniform in +-1/sqrt(features).
        rngs: Source of the initial values.
    """

    def __init__(self, features: int, num_heads: int, *, dtype: str, kernel_init: Initializer, rngs: nnx.Rngs):
        self.dtype, self.num_heads = dtype, num_heads
        qkv = _qkv_fan_in_uniform(rngs.params(), (features, 3, features), jnp.float32)
        self.qkv = nnx.Param(qkv, axes=("embed", "kernel", "mlp"))
        self.q_norm = RMSNorm(features // num_heads)
        self.k_norm = RMSNorm(features // num_heads)
        self.out = Linear(features, features, axes=("mlp", "embed"), dtype=dtype, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Map [B, h, w, C] to the same shape."""
        batch, rows, columns, features = x.shape
        tokens = x.astype(self.dtype).reshape(batch, rows * columns, features)
        qkv = jnp.einsum("bnc,ckd->kbnd", tokens, self.qkv[...].astype(self.dtype))
        q, k, v = qkv.reshape(3, batch, rows * columns, self.num_heads, -1)
        angles = rotary_angles(rows, columns, features // self.num_heads)
        mixed = multi_head_attend(rotate(self.q_norm(q), angles), rotate(self.k_norm(k), angles), v)
        return self.out(mixed.reshape(x.shape))


class SwiGLU(nnx.Module):
    """w2(SiLU(w1 x) * w3 x) without biases (Shazeer 2020)."""

    def __init__(self, features: int, width: int, *, dtype: str, kernel_init: Initializer, rngs: nnx.Rngs):
        def linear(in_features: int, out_features: int, axes: tuple[str, str]) -> Linear:
            return Linear(
                in_features, out_features, axes=axes, dtype=dtype, use_bias=False, kernel_init=kernel_init, rngs=rngs
            )

        self.gate = linear(features, width, ("embed", "mlp"))
        self.value = linear(features, width, ("embed", "mlp"))
        self.out = linear(width, features, ("mlp", "embed"))

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Map [B, h, w, C] to the same shape."""
        return self.out(jax.nn.silu(self.gate(x)) * self.value(x))


class TransformerBlock(nnx.Module):
    """Attention and SwiGLU, each normalised, modulated and gated by `drive` (Peebles and Xie 2023).

    Args:
        features: Channels.
        num_heads: Attention heads.
        mlp_ratio: Width of the SwiGLU, as int(2/3 int(mlp_ratio features)).
        dtype: Dtype of the computation.
        kernel_init: Initialiser of the kernels.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        dtype: str,
        kernel_init: Initializer,
        rngs: nnx.Rngs,
    ):
        self.modulation = Linear(
            features, 6 * features, axes=("embed", "modulation"), dtype=dtype, kernel_init=kernel_init, rngs=rngs
        )
        self.norm1 = RMSNorm(features)
        self.attention = RotaryAttention(features, num_heads, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
        self.norm2 = RMSNorm(features)
        width = 2 * int(features * mlp_ratio) // 3
        self.mlp = SwiGLU(features, width, dtype=dtype, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"], drive: Float[Array, "B h2 w2 C"]) -> Float[Array, "B h w C"]:
        """Map [B, h, w, C] to the same shape.

        Args:
            x: Features of the grid.
            drive: Source of the modulation, after its activation: [B, 1, 1, C], the same for all positions, or
                [B, h, w, C].
        """
        modulation = jnp.split(self.modulation(drive), 6, axis=-1)
        shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attention * self.attention(modulate(self.norm1(x), shift_attention, scale_attention))
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))
