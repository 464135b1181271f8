"""Convolutional blocks of the condition codec: residual block, downsampling, upsampling.

See docs/method.md, Condition codec.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from cod_jax.nn.layers import Conv, Linear, xavier_uniform, zeros
from cod_jax.nn.norms import GroupNorm


class ResBlock(nnx.Module):
    """Group norm, SiLU and a 3x3 convolution, twice, plus the input (through a 1x1 layer where the width changes).

    Args:
        in_features: Input channels.
        out_features: Output channels.
        num_groups: Groups of both normalisations.
        dtype: Dtype of the computation.
        kernel_init: Initialiser of the kernels.
        last_init: Initialiser of the second convolution; `kernel_init` by default.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_groups: int,
        *,
        dtype: str,
        kernel_init: Initializer = xavier_uniform,
        last_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.norm1 = GroupNorm(in_features, num_groups)
        self.conv1 = Conv(in_features, out_features, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
        self.norm2 = GroupNorm(out_features, num_groups)
        self.conv2 = Conv(out_features, out_features, dtype=dtype, kernel_init=last_init or kernel_init, rngs=rngs)
        shortcut = None
        if in_features != out_features:
            axes = ("conv_in", "conv_out")
            shortcut = Linear(in_features, out_features, axes=axes, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
        self.shortcut = nnx.data(shortcut)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C2"]:
        """Map [B, H, W, in_features] to [B, H, W, out_features]."""
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        return (x if self.shortcut is None else self.shortcut(x)) + y


class Downsample(nnx.Module):
    """3x3 convolution of stride 2, after padding one zero row at the bottom and one zero column at the right."""

    def __init__(self, features: int, *, dtype: str, kernel_init: Initializer = xavier_uniform, rngs: nnx.Rngs):
        padding = ((0, 1), (0, 1))
        self.conv = Conv(features, features, stride=2, padding=padding, dtype=dtype, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
        """Map [B, H, W, C] to [B, H / 2, W / 2, C]."""
        return self.conv(x)


class Upsample(nnx.Module):
    """Nearest-neighbour enlargement by 2, then a residual block whose second convolution starts at zero."""

    def __init__(
        self, features: int, num_groups: int, *, dtype: str, kernel_init: Initializer = xavier_uniform, rngs: nnx.Rngs
    ):
        self.block = ResBlock(
            features, features, num_groups, dtype=dtype, kernel_init=kernel_init, last_init=zeros, rngs=rngs
        )

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
        """Map [B, H, W, C] to [B, 2 H, 2 W, C]."""
        return self.block(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))
