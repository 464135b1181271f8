"""Common part of the pixel heads of CoD-Lite and pixel CoD; see docs/method.md, Denoisers."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.nn.embeddings import patchify, pixel_position_features, unpatchify
from cod_jax.nn.layers import Linear, kernel_and_bias, zeros
from cod_jax.nn.norms import RMSNorm


class PixelHead(nnx.Module):
    """A head that embeds [pixel of x_t, condition, position] of every pixel, refines it, and predicts RGB.

    Each patch is computed by itself. Subclasses define `refine`. Arrays inside are [B, h, w, pixels of the patch,
    channels], with pixels row-major.

    Args:
        hidden: Channels on the patch grid.
        features: Channels per pixel.
        dtype: Dtype of the computation.
        kernel_init: Initialiser of the kernels; the last one starts at zero.
        rngs: Source of the initial values.
    """

    def __init__(self, hidden: int, features: int, *, dtype: str, kernel_init: Initializer, rngs: nnx.Rngs):
        self.dtype = dtype
        make = {"dtype": dtype, "kernel_init": kernel_init, "rngs": rngs}
        self.condition = Linear(hidden, PATCH_SIZE**2 * features, axes=("embed", "mlp"), **make)
        num_position_features = pixel_position_features(PATCH_SIZE).shape[-1]
        self.embed = Linear(3 + features + num_position_features, features, axes=("features", "pixel"), **make)
        self.norm_out = RMSNorm(features)
        # Rounding to bfloat16 would put its error, divided by 0.05, into the velocity.
        make = {"dtype": "float32", "precision": jax.lax.Precision.HIGHEST, "kernel_init": zeros, "rngs": rngs}
        self.out = Linear(features, 3, axes=("pixel", "features"), **make)

    def embedding(self) -> tuple[Float[Array, "in C"], Float[Array, " C"]]:
        """Return kernel and bias of the map from [pixel, condition, position] to the channels of a pixel."""
        return kernel_and_bias(self.embed)

    def refine(self, x: Float[Array, "B h w P C"], state: Float[Array, "B h w hidden"]) -> Float[Array, "B h w P C"]:
        """Return the new features of each pixel, given the denoiser's state of its patch."""
        raise NotImplementedError(f"{type(self).__name__} must define refine")

    def read(self, x: Float[Array, "B h w P C"], state: Float[Array, "B h w hidden"]) -> Float[Array, "B h w P 3"]:
        """Return the pixels of every patch, float32, given their embedded features and the denoiser's state."""
        return self.out(self.norm_out(self.refine(x, state)))

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        condition: Float[Array, "B h w hidden"],
        state: Float[Array, "B h w hidden"],
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W 3"]:
        """Predict [B, H, W, 3] from the noisy image, the condition and the state after the last block.

        Args:
            x_t: Noisy image.
            condition: Condition on the patch grid.
            state: The denoiser's state on the patch grid.
            by_rows: Compute one row of patches after the other. The result is the same and takes the memory of a row,
                which is faster on a CPU and slower on accelerators.
        """
        if not by_rows:
            return self._pixels(x_t, condition, state)

        def rows_first(x: jax.Array) -> jax.Array:
            return x.reshape(x.shape[0], condition.shape[1], -1, *x.shape[2:]).swapaxes(0, 1)

        rows = jax.lax.map(lambda row: self._pixels(*row), tuple(map(rows_first, (x_t, condition, state))))
        return rows.swapaxes(0, 1).reshape(x_t.shape)

    def _pixels(self, x_t: jax.Array, condition: jax.Array, state: jax.Array) -> jax.Array:
        pixels = patchify(x_t, PATCH_SIZE).astype(self.dtype)
        # The kernel's rows belong to [pixel, condition, position]. Applying each part by itself avoids the widest
        # arrays of the network.
        kernel, bias = self.embedding()
        position_features = pixel_position_features(PATCH_SIZE)
        num_positions = position_features.shape[-1]
        positions = (
            jnp.dot(position_features, kernel[-num_positions:], precision=jax.lax.Precision.HIGHEST) + bias[None]
        )
        kernel = kernel.astype(self.dtype)
        per_pixel = self.condition(condition).reshape(*pixels.shape[:-1], -1)
        x = pixels @ kernel[:3] + per_pixel @ kernel[3:-num_positions]
        x = x + positions.astype(self.dtype)[None, None, None]
        return unpatchify(self.read(x, state), PATCH_SIZE)
