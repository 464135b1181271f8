"""Training heads that read something from features of the patch grid; not part of an exported model."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.nn.layers import Linear


class FeatureHead(nnx.Module):
    """MLP hidden -> hidden -> hidden -> out with SiLU, at every position.

    Args:
      hidden: Channels of the features.
      out_features: Channels of the output.
      dtype: Dtype of the computation.
      rngs: Source of the initial values.
    """

    def __init__(self, hidden: int, out_features: int, *, dtype: str, rngs: nnx.Rngs):
        self.layer0 = Linear(hidden, hidden, axes=("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.layer1 = Linear(hidden, hidden, axes=("mlp", "embed"), dtype=dtype, rngs=rngs)
        self.out = Linear(hidden, out_features, axes=("embed", "features"), dtype=dtype, rngs=rngs)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        """Map features [B, h, w, hidden] to float32 [B, h, w, out_features]."""
        x = jax.nn.silu(self.layer0(features))
        return self.out(jax.nn.silu(self.layer1(x))).astype(jnp.float32)
