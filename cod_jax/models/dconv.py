"""DConv, the convolutional denoiser of CoD-Lite; see docs/method.md, Denoisers."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import (
    MAX_BLOCKS,
    MAX_PIXEL_BLOCKS,
    MAX_WIDTH,
    PATCH_SIZE,
    Denoised,
    DenoiserConfig,
    Prediction,
    require_mlp_ratio,
)
from cod_jax.models.fields import require_range
from cod_jax.models.pixel_head import PixelHead
from cod_jax.nn.embeddings import TimestepEmbedding, patchify
from cod_jax.nn.layers import DepthwiseConv, Linear, compose, modulate, xavier_uniform, zeros
from cod_jax.nn.norms import LayerNorm, layer_norm
from cod_jax.nn.stack import Stack


@dataclasses.dataclass(frozen=True)
class DConvConfig(DenoiserConfig):
    """Description of CoD-Lite's convolutional denoiser; see docs/method.md, Denoisers.

    Attributes:
        kind: Name of this kind of denoiser.
        hidden: Channels on the patch grid, also of the condition.
        hidden_pixel: Channels per pixel in the pixel head.
        num_blocks: Condition blocks.
        num_pixel_blocks: Residual blocks of the pixel head.
        bottleneck_width: Channels of the patch embedding before it is joined with the condition.
        mlp_ratio: Width of a block's MLP over `hidden`.
        prediction: What the network outputs, "image" or "velocity".
    """

    kind: Literal["dconv"] = "dconv"
    hidden: int = 384
    hidden_pixel: int = 32
    num_blocks: int = 21
    num_pixel_blocks: int = 3
    bottleneck_width: int = 128
    mlp_ratio: float = 4.0
    prediction: Prediction = "image"

    def __post_init__(self):
        widths = dict.fromkeys(("hidden", "hidden_pixel", "bottleneck_width"), MAX_WIDTH)
        require_range(self, {**widths, "num_blocks": MAX_BLOCKS, "num_pixel_blocks": MAX_PIXEL_BLOCKS})
        require_mlp_ratio(self.mlp_ratio, self.hidden)

    @property
    def codec_init(self) -> Initializer:
        """Xavier's initialiser, as published."""
        return xavier_uniform

    def build(self, *, compute: ComputeConfig, rngs: nnx.Rngs) -> "DConv":
        """Return the network; see `DenoiserConfig.build`."""
        return DConv(self, compute=compute, rngs=rngs)


TIMESTEP_BASE = 10000.0


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


class MLPPixelHead(PixelHead):
    """The head of CoD-Lite: residual MLPs per pixel, modulated by features of the patch."""

    def __init__(self, config: DConvConfig, *, dtype: str, rngs: nnx.Rngs):
        features = config.hidden_pixel
        super().__init__(config.hidden, features, dtype=dtype, kernel_init=xavier_uniform, rngs=rngs)
        self.drive = Linear(config.hidden, PATCH_SIZE**2 * features, axes=("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.project = Linear(features, features, axes=("pixel", "pixel"), dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([PixelBlock(features, dtype=dtype, rngs=rngs) for _ in range(config.num_pixel_blocks)])

    def embedding(self) -> tuple[Float[Array, "in C"], Float[Array, " C"]]:
        """Return kernel and bias of the two linear maps that embed a pixel, multiplied into one."""
        return compose(self.embed, self.project)

    def refine(self, x: Float[Array, "B h w P C"], state: Float[Array, "B h w hidden"]) -> Float[Array, "B h w P C"]:
        """Run the residual MLPs."""
        drive = jax.nn.silu(self.drive(state).reshape(x.shape))
        for block in self.blocks:
            x = block(x, drive)
        return x


class DConv(nnx.Module):
    """Condition blocks on the patch grid, then the pixel head.

    Args:
        config: The denoiser's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: DConvConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        hidden, dtype = config.hidden, compute.dtype
        self.timestep = TimestepEmbedding(hidden, base=TIMESTEP_BASE, uniform_bias=False, dtype=dtype, rngs=rngs)
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
            remat=compute.remat,
            unroll=compute.unroll,
            rngs=rngs,
        )
        self.head = MLPPixelHead(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Return the raw prediction at x_t, an image in [-1, 1] or a velocity; see `Denoiser`."""
        patches = patchify(x_t, PATCH_SIZE)
        embedded = self.patch_embed(patches.reshape(*patches.shape[:3], -1))
        condition = condition.astype(embedded.dtype)
        state = self.merge(jnp.concatenate([embedded, condition], axis=-1))
        state, features = self.blocks.run(state, self.timestep(t), features_after=features_after)
        return Denoised(self.head(x_t, condition, state, by_rows=by_rows).astype(jnp.float32), features)
