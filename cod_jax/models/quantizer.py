"""Vector quantisation (van den Oord et al. 2017), the bottleneck of the published models (spec section 1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

# The published code weights the codebook's term, not the encoder's commitment, with 0.25.
CODEBOOK_WEIGHT = 0.25


class Quantized(NamedTuple):
    """Code vectors [B, h, w, C] with straight-through gradient, their indices [B, h, w], and the loss."""

    values: Float[Array, "B h w C"]
    indices: Int[Array, "B h w"]
    loss: Float[Array, ""]


class VectorQuantizer(nnx.Module):
    """Nearest code vector by squared distance, in float32.

    Args:
      codebook_size: Number of code vectors; initialised uniformly in +-1 / codebook_size.
      features: Channels of a code vector.
      rngs: Source of the initial values.
    """

    def __init__(self, codebook_size: int, features: int, *, rngs: nnx.Rngs):
        codebook = jax.random.uniform(rngs.params(), (codebook_size, features), jnp.float32, -1.0, 1.0)
        self.codebook = nnx.Param(codebook / codebook_size, axes=("codebook", "latent"))

    def nearest(self, z: Float[Array, "B h w C"]) -> Int[Array, "B h w"]:
        """Index of the nearest code vector of each position; the first one where several are equally near."""
        z = z.astype(jnp.float32)
        codebook = self.codebook[...]
        # float32 products in full precision: tensor cores' shorter ones would flip indices between devices.
        products = jnp.einsum("bhwc,nc->bhwn", z, codebook, precision=jax.lax.Precision.HIGHEST)
        norms = jnp.sum(codebook**2, axis=-1)[None, None, None]
        distances = jnp.sum(z**2, axis=-1, keepdims=True) + norms - 2 * products
        return jnp.argmin(distances, axis=-1).astype(jnp.int32)

    def lookup(self, indices: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """Code vectors of the indices."""
        return self.codebook[...][indices]

    def __call__(self, z: Float[Array, "B h w C"]) -> Quantized:
        """Quantise z; the loss is mean((sg(e) - z)^2) + 0.25 mean((e - sg(z))^2)."""
        z = z.astype(jnp.float32)
        indices = self.nearest(z)
        codes = self.lookup(indices)
        commitment = jnp.mean((jax.lax.stop_gradient(codes) - z) ** 2)
        codebook = jnp.mean((codes - jax.lax.stop_gradient(z)) ** 2)
        values = z + jax.lax.stop_gradient(codes - z)
        return Quantized(values, indices, commitment + CODEBOOK_WEIGHT * codebook)
