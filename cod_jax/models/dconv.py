"""DConv, the convolutional denoiser of CoD-Lite (spec section 2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.models.config import PATCH_SIZE, DConvConfig
from cod_jax.nn.embeddings import TimestepEmbedding, patchify, pixel_position_features, unpatchify
from cod_jax.nn.layers import DepthwiseConv, Linear, compose, zeros
from cod_jax.nn.norms import LayerNorm, RMSNorm, layer_norm
from cod_jax.nn.stack import Stack

TIMESTEP_BASE = 10000.0


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """x (1 + scale) + shift."""
    return x * (1 + scale) + shift


class DiCoBlock(nnx.Module):
    """Convolutional mixer and MLP, both modulated and gated by the timestep.

    Args:
      features: Channels.
      mlp_ratio: Width of the MLP over `features`.
      dtype: Dtype of the computation.
      rngs: Source of the initial values; the modulation starts at zero.
    """

    def __init__(self, features: int, mlp_ratio: float, *, dtype: str, rngs: nnx.Rngs):
        width = int(features * mlp_ratio)
        self.modulation = Linear(
            features, 6 * features, axes=("embed", "modulation"), dtype=dtype, kernel_init=zeros, rngs=rngs
        )
        self.expand = Linear(features, features, axes=("embed", "mixer"), dtype=dtype, rngs=rngs)
        self.depthwise = DepthwiseConv(features, dtype=dtype, rngs=rngs)
        self.channel_gate = Linear(features, features, axes=("embed", "mixer"), dtype=dtype, rngs=rngs)
        self.project = Linear(features, features, axes=("mixer", "embed"), dtype=dtype, rngs=rngs)
        self.mlp_in = Linear(features, width, axes=("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.mlp_out = Linear(width, features, axes=("mlp", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"], t_embedding: Float[Array, "B C"]) -> Float[Array, "B h w C"]:
        """Map [B, h, w, C] to the same shape."""
        modulation = self.modulation(jax.nn.silu(t_embedding))[:, None, None, :]
        shift_mixer, scale_mixer, gate_mixer, shift_mlp, scale_mlp, gate_mlp = jnp.split(modulation, 6, axis=-1)
        y = self.expand(modulate(layer_norm(x), shift_mixer, scale_mixer))
        y = jax.nn.gelu(self.depthwise(y), approximate=False)
        pooled = jnp.mean(y.astype(jnp.float32), axis=(1, 2), keepdims=True).astype(y.dtype)
        y = self.project(y * jax.nn.sigmoid(self.channel_gate(pooled)))
        x = x + gate_mixer * y
        y = self.mlp_in(modulate(layer_norm(x), shift_mlp, scale_mlp))
        return x + gate_mlp * self.mlp_out(jax.nn.gelu(y, approximate=False))


class PixelBlock(nnx.Module):
    """Residual MLP per pixel, modulated by features of its patch."""

    def __init__(self, features: int, *, dtype: str, rngs: nnx.Rngs):
        axes = ("pixel", "pixel")
        self.norm = LayerNorm(features)
        self.modulation = Linear(features, 3 * features, axes=axes, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.mlp_in = Linear(features, features, axes=axes, dtype=dtype, rngs=rngs)
        self.mlp_out = Linear(features, features, axes=axes, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w P C"], drive: Float[Array, "B h w P C"]) -> Float[Array, "B h w P C"]:
        """Map [B, h, w, pixels, C] to the same shape; `drive` is SiLU of the patch features per pixel."""
        shift, scale, gate = jnp.split(self.modulation(drive), 3, axis=-1)
        y = self.mlp_out(jax.nn.silu(self.mlp_in(modulate(self.norm(x), shift, scale))))
        return x + gate * y


class PixelHead(nnx.Module):
    """From features per patch to values per pixel; everything in it is local to a patch.

    Arrays are [B, h, w, pixels of the patch, channels], pixels row-major.
    """

    def __init__(self, config: DConvConfig, *, dtype: str, rngs: nnx.Rngs):
        features, num_pixels = config.hidden_pixel, PATCH_SIZE**2
        self.dtype = dtype
        axes = ("embed", "mlp")
        self.condition = Linear(config.hidden, num_pixels * features, axes=axes, dtype=dtype, rngs=rngs)
        self.drive = Linear(config.hidden, num_pixels * features, axes=axes, dtype=dtype, rngs=rngs)
        num_position_features = pixel_position_features(PATCH_SIZE).shape[-1]
        self.embed = Linear(
            3 + features + num_position_features, features, axes=("features", "pixel"), dtype=dtype, rngs=rngs
        )
        self.project = Linear(features, features, axes=("pixel", "pixel"), dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([PixelBlock(features, dtype=dtype, rngs=rngs) for _ in range(config.num_pixel_blocks)])
        self.norm_out = RMSNorm(features)
        self.out = Linear(features, 3, axes=("pixel", "features"), dtype=dtype, kernel_init=zeros, rngs=rngs)

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        condition: Float[Array, "B h w hidden"],
        state: Float[Array, "B h w hidden"],
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W 3"]:
        """Predict [B, H, W, 3] from the noisy image, the condition and the last block's output.

        Args:
          x_t: Noisy image.
          condition: Condition on the patch grid.
          state: The last block's output.
          by_rows: Compute one row of patches after the other. The result is the same; memory is that of a row, which
            is faster on a CPU and slower on accelerators.
        """
        if not by_rows:
            return self._pixels(x_t, condition, state)

        def rows_first(x: jax.Array) -> jax.Array:
            return x.reshape(x.shape[0], condition.shape[1], -1, *x.shape[2:]).swapaxes(0, 1)

        rows = jax.lax.map(lambda row: self._pixels(*row), tuple(map(rows_first, (x_t, condition, state))))
        return rows.swapaxes(0, 1).reshape(x_t.shape)

    def _pixels(self, x_t: jax.Array, condition: jax.Array, state: jax.Array) -> jax.Array:
        pixels = patchify(x_t, PATCH_SIZE).astype(self.dtype)
        shape = (*pixels.shape[:-1], -1)
        # Two linear maps in a row, and the first one's input is [pixel, condition, position]: their product applied to
        # each of the three spares the widest arrays of the network.
        kernel, bias = compose(self.embed, self.project)
        num_positions = kernel.shape[0] - 3 - self.project.kernel.shape[0]
        positions = jnp.asarray(pixel_position_features(PATCH_SIZE)) @ kernel[-num_positions:] + bias[None]
        kernel = kernel.astype(self.dtype)
        x = pixels @ kernel[:3] + self.condition(condition).reshape(shape) @ kernel[3:-num_positions]
        x = x + positions.astype(self.dtype)[None, None, None]
        drive = jax.nn.silu(self.drive(state).reshape(shape))
        for block in self.blocks:
            x = block(x, drive)
        return unpatchify(self.out(self.norm_out(x)), PATCH_SIZE)


class DConv(nnx.Module):
    """Condition blocks on the patch grid, then the pixel head.

    Args:
      config: The denoiser's description.
      dtype: Dtype of the computation.
      rngs: Source of the initial values.
    """

    def __init__(self, config: DConvConfig, *, dtype: str, rngs: nnx.Rngs):
        hidden = config.hidden
        self.timestep = TimestepEmbedding(hidden, base=TIMESTEP_BASE, dtype=dtype, rngs=rngs)
        self.patch_embed = Linear(
            3 * PATCH_SIZE**2,
            config.bottleneck_width,
            axes=("features", "mixer"),
            dtype=dtype,
            use_bias=False,
            rngs=rngs,
        )
        self.merge = Linear(config.bottleneck_width + hidden, hidden, axes=("mixer", "embed"), dtype=dtype, rngs=rngs)
        self.blocks = Stack(
            lambda block_rngs: DiCoBlock(hidden, config.mlp_ratio, dtype=dtype, rngs=block_rngs),
            config.num_blocks,
            rngs=rngs,
        )
        self.head = PixelHead(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W 3"]:
        """Raw prediction in float32, an image in [-1, 1] or a velocity, for x_t at timestep t.

        `by_rows` runs the pixel head row after row, see `PixelHead`.
        """
        patches = patchify(x_t, PATCH_SIZE)
        embedded = self.patch_embed(patches.reshape(*patches.shape[:3], -1))
        condition = condition.astype(embedded.dtype)
        state = self.merge(jnp.concatenate([embedded, condition], axis=-1))
        state = self.blocks(state, self.timestep(t))
        return self.head(x_t, condition, state, by_rows=by_rows).astype(jnp.float32)
