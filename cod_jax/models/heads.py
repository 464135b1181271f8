"""Training heads on features of the patch grid, which exported models leave out."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.nn.layers import Linear, fan_in_uniform


class FeatureHead(nnx.Module):
    """MLP with SiLU and two hidden layers, applied at every position.

    Args:
        hidden: Channels of the features.
        out_features: Channels of the output.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, hidden: int, out_features: int, *, dtype: str, rngs: nnx.Rngs):
        # Random biases matter. The condition starts at zero; if the head mapped it to zero, the cosine would have no
        # direction to compare and a gradient of 1e8.
        make = {"dtype": dtype, "kernel_init": fan_in_uniform, "rngs": rngs}
        self.layer0 = Linear(hidden, hidden, axes=("embed", "mlp"), **make)
        self.layer1 = Linear(hidden, hidden, axes=("mlp", "embed"), **make)
        self.out = Linear(hidden, out_features, axes=("embed", "features"), **make)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        """Map features [B, h, w, hidden] to float32 [B, h, w, out_features]."""
        x = jax.nn.silu(self.layer0(features))
        return self.out(jax.nn.silu(self.layer1(x))).astype(jnp.float32)
