"""Denoisers of one-step codecs up to their maps to pixels, without what is constant at t = 0 and zero noise."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.models.compact import CompactDenoiser
from cod_jax.models.dconv import DConv
from cod_jax.models.pixnerdit import PixNerDiT
from cod_jax.nn.layers import Linear


class NeutralModulation(nnx.Module):
    """Replacement for the adaLN layer of a `DiCoBlock`, whose values are folded into the block's other layers.

    Shifts and scales are 0 and gates are 1, so compilers remove them.
    """

    def __init__(self, features: int, dtype: str):
        self.features, self.dtype = features, dtype

    def __call__(self, _: Float[Array, "B C"]) -> Float[Array, "1 C6"]:
        """Return (shift, scale, gate) of the mixer and of the MLP, each [1, features]."""
        return jnp.repeat(jnp.asarray([0, 0, 1, 0, 0, 1], self.dtype), self.features)[None]


class ConstantModulation(nnx.Module):
    """Replacement for the adaLN layers of stacked `TransformerBlock`s: their output at t = 0.

    It cannot be folded, because most layers of these blocks have no bias.
    """

    def __init__(self, num_layers: int, features: int, dtype: str):
        self.dtype = dtype
        self.values = nnx.Param(jnp.zeros((num_layers, 6 * features)), axes=("layers", "modulation"))

    def __call__(self, _: Float[Array, "B 1 1 C"]) -> Float[Array, "1 1 1 C6"]:
        """Return (shift, scale, gate) of the attention and of the MLP of one block."""
        return self.values[...].astype(self.dtype)[None, None, None]


class ConvolutionTrunk(nnx.Module):
    """Part of `DConv` between the condition and the pixel head.

    Args:
        denoiser: The whole denoiser; its blocks are taken and changed.
        hidden: Channels on the patch grid.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, denoiser: DConv, hidden: int, *, dtype: str, rngs: nnx.Rngs):
        self.merge = Linear(hidden, hidden, axes=("mixer", "embed"), dtype=dtype, rngs=rngs)
        self.blocks = denoiser.blocks
        self.blocks.block.modulation = NeutralModulation(hidden, dtype)

    def __call__(self, condition: Float[Array, "B h w hidden"]) -> Float[Array, "B h w hidden"]:
        """Return the state after the last block."""
        state = self.merge(condition)
        # The blocks' second argument is the timestep's embedding, which nothing reads here.
        return self.blocks(state, jnp.zeros((state.shape[0], state.shape[-1])))


class TransformerTrunk(nnx.Module):
    """Part of `PixNerDiT` between the condition and the pixel head.

    Args:
        denoiser: The whole denoiser; its blocks are taken and changed.
        hidden: Channels on the patch grid.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, denoiser: PixNerDiT, hidden: int, *, dtype: str, rngs: nnx.Rngs):
        self.merge = Linear(hidden, hidden, axes=("features", "embed"), dtype=dtype, rngs=rngs)
        self.blocks = denoiser.blocks
        self.blocks.block.modulation = ConstantModulation(self.blocks.num_layers, hidden, dtype)
        self.timestep = nnx.Param(jnp.zeros((hidden,)), axes=("embed",))

    def __call__(self, condition: Float[Array, "B h w hidden"]) -> Float[Array, "B h w hidden"]:
        """Return the state after the last block and the activation that follows it."""
        state = self.merge(condition)
        # The blocks' second argument drives the modulation, which is constant here.
        state = self.blocks(state, jnp.zeros((state.shape[0], 1, 1, state.shape[-1])))
        return jax.nn.silu(self.timestep[...].astype(state.dtype)[None, None, None] + state)


class CompactTrunk(nnx.Module):
    """Part of `CompactDenoiser` between the condition and the linear map to pixels; modulation is folded.

    Args:
        denoiser: The whole denoiser; its blocks are taken and changed.
    """

    def __init__(self, denoiser: CompactDenoiser):
        self.blocks = denoiser.blocks
        self.blocks.block.modulation = nnx.data(None)

    def __call__(self, condition: Float[Array, "B h w hidden"]) -> Float[Array, "B h w hidden"]:
        """Return the state after the last block."""
        return self.blocks(condition)


def build_trunk(
    denoiser: CompactDenoiser | DConv | PixNerDiT, hidden: int, *, dtype: str, rngs: nnx.Rngs
) -> CompactTrunk | ConvolutionTrunk | TransformerTrunk:
    """Return the trunk of a denoiser, which takes over and changes the denoiser's blocks."""
    if isinstance(denoiser, CompactDenoiser):
        return CompactTrunk(denoiser)
    if isinstance(denoiser, DConv):
        return ConvolutionTrunk(denoiser, hidden, dtype=dtype, rngs=rngs)
    return TransformerTrunk(denoiser, hidden, dtype=dtype, rngs=rngs)
