"""The denoisers of one-step codecs up to their pixel heads, without what is constant at t = 0 and zero noise."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.models.dconv import DConv
from cod_jax.models.pixnerdit import PixNerDiT
from cod_jax.nn.layers import Linear


class NeutralModulation(nnx.Module):
    """Stands where the adaLN layer of a `DiCoBlock` was whose values are folded into its other layers.

    Shifts and scales are 0 and gates are 1 whatever the timestep; compilers drop them.
    """

    def __init__(self, features: int, dtype: str):
        self.features, self.dtype = features, dtype

    def __call__(self, _: Float[Array, "B C"]) -> Float[Array, "1 C6"]:
        """Return (shift, scale, gate) of the mixer and of the MLP, each [1, features]."""
        return jnp.repeat(jnp.asarray([0, 0, 1, 0, 0, 1], self.dtype), self.features)[None]


class ConstantModulation(nnx.Module):
    """Stands where the adaLN layers of stacked `TransformerBlock`s were: what they say at t = 0.

    Most layers of these blocks have no bias that could take it.
    """

    def __init__(self, num_layers: int, features: int, dtype: str):
        self.dtype = dtype
        self.values = nnx.Param(jnp.zeros((num_layers, 6 * features)), axes=("layers", "modulation"))

    def __call__(self, _: Float[Array, "B 1 1 C"]) -> Float[Array, "1 1 1 C6"]:
        """Return (shift, scale, gate) of the attention and of the MLP of one block."""
        return self.values[...].astype(self.dtype)[None, None, None]


class ConvolutionTrunk(nnx.Module):
    """What `DConv` does between the condition and its pixel head.

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
        """State after the last block."""
        state = self.merge(condition)
        # The blocks' second argument is the timestep's embedding, which nothing reads any more.
        return self.blocks(state, jnp.zeros((state.shape[0], state.shape[-1])))


class TransformerTrunk(nnx.Module):
    """What `PixNerDiT` does between the condition and its pixel head.

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
        """State after the last block and the activation that follows it."""
        state = self.merge(condition)
        # The blocks' second argument drives the modulation, which is constant here.
        state = self.blocks(state, jnp.zeros((state.shape[0], 1, 1, state.shape[-1])))
        return jax.nn.silu(self.timestep[...].astype(state.dtype)[None, None, None] + state)


def build_trunk(
    denoiser: DConv | PixNerDiT, hidden: int, *, dtype: str, rngs: nnx.Rngs
) -> ConvolutionTrunk | TransformerTrunk:
    """The trunk of a denoiser, which is used up."""
    if isinstance(denoiser, DConv):
        return ConvolutionTrunk(denoiser, hidden, dtype=dtype, rngs=rngs)
    return TransformerTrunk(denoiser, hidden, dtype=dtype, rngs=rngs)
