"""Residual blocks of compact models; see docs/method.md, Compact models."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.models.compute import ComputeConfig
from cod_jax.nn.layers import DepthwiseConv, Linear, modulate, zeros
from cod_jax.nn.norms import RMSNorm
from cod_jax.nn.stack import Stack

# The last layer of a block starts so small that the linear path decides, and still passes a gradient to the others.
small = nnx.initializers.variance_scaling(0.01, "fan_avg", "uniform")


class CompactBlock(nnx.Module):
    """Residual 3x3 mixer and MLP, y = x + f(x); the input of both is scaled to a root mean square of 1.

    Args:
        features: Channels.
        mlp_ratio: Width of the MLP over `features`.
        modulated: Whether the timestep shifts and scales the inputs; the modulation starts at zero.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, features: int, mlp_ratio: float, *, modulated: bool, dtype: str, rngs: nnx.Rngs):
        width = int(features * mlp_ratio)
        make: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm_mixer, self.norm_mlp = RMSNorm(features), RMSNorm(features)
        self.expand = Linear(features, features, axes=("embed", "mixer"), **make)
        self.depthwise = DepthwiseConv(features, padding="edge", **make)
        self.project = Linear(features, features, axes=("mixer", "embed"), kernel_init=small, **make)
        self.mlp_in = Linear(features, width, axes=("embed", "mlp"), **make)
        self.mlp_out = Linear(width, features, axes=("mlp", "embed"), kernel_init=small, **make)
        modulation = None
        if modulated:
            modulation = Linear(features, 4 * features, axes=("embed", "modulation"), kernel_init=zeros, **make)
        self.modulation = nnx.data(modulation)

    def __call__(
        self, x: Float[Array, "B h w C"], t_embedding: Float[Array, "B C"] | None = None
    ) -> Float[Array, "B h w C"]:
        """Map [B, h, w, C] to the same shape."""
        mixer, mlp = self.norm_mixer(x), None
        if self.modulation is not None and t_embedding is not None:
            values = self.modulation(jax.nn.silu(t_embedding))[:, None, None]
            shift_mixer, scale_mixer, shift_mlp, scale_mlp = jnp.split(values, 4, axis=-1)
            mixer, mlp = modulate(mixer, shift_mixer, scale_mixer), (shift_mlp, scale_mlp)
        x = x + self.project(jax.nn.silu(self.depthwise(self.expand(mixer))))
        y = self.norm_mlp(x)
        y = y if mlp is None else modulate(y, *mlp)
        return x + self.mlp_out(jax.nn.silu(self.mlp_in(y)))


def compact_blocks(
    features: int,
    mlp_ratio: float,
    number: int,
    *,
    modulated: bool = False,
    compute: ComputeConfig,
    rngs: nnx.Rngs,
) -> Stack:
    """Return a stack of `CompactBlock`s; arguments are theirs, the number of them, and how they are computed."""
    return Stack(
        lambda block_rngs: CompactBlock(features, mlp_ratio, modulated=modulated, dtype=compute.dtype, rngs=block_rngs),
        number,
        remat=compute.remat,
        unroll=compute.unroll,
        rngs=rngs,
    )
