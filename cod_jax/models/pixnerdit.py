"""PixNerDiT, the denoiser of pixel CoD; see docs/method.md, Denoisers."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
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
    require_heads,
    require_mlp_ratio,
)
from cod_jax.models.fields import require_range
from cod_jax.models.pixel_head import PixelHead
from cod_jax.nn.embeddings import TimestepEmbedding, patchify
from cod_jax.nn.layers import Linear, fan_in_uniform, xavier_uniform
from cod_jax.nn.norms import RMSNorm
from cod_jax.nn.stack import Stack
from cod_jax.nn.transformer import TransformerBlock


@dataclasses.dataclass(frozen=True)
class PixNerDiTConfig(DenoiserConfig):
    """Description of pixel CoD's transformer denoiser; the defaults are the published XL.

    Attributes:
        kind: Name of this kind of denoiser.
        hidden: Channels on the patch grid, also of the condition.
        num_heads: Attention heads; each must have a multiple of 4 channels.
        hidden_pixel: Channels per pixel.
        num_blocks: Transformer blocks.
        num_pixel_blocks: Neural-field blocks.
        mlp_ratio: Width of a transformer block's MLP over `hidden`, before the two thirds of SwiGLU.
        pixel_mlp_ratio: Width of a neural field's MLP over `hidden_pixel`.
        prediction: What the network outputs, "image" or "velocity".
    """

    kind: Literal["pixnerdit"] = "pixnerdit"
    hidden: int = 1152
    num_heads: int = 16
    hidden_pixel: int = 64
    num_blocks: int = 26
    num_pixel_blocks: int = 4
    mlp_ratio: float = 4.0
    pixel_mlp_ratio: int = 2
    prediction: Prediction = "velocity"

    def __post_init__(self):
        widths = dict.fromkeys(("hidden", "num_heads", "hidden_pixel"), MAX_WIDTH)
        blocks = {"num_blocks": MAX_BLOCKS, "num_pixel_blocks": MAX_PIXEL_BLOCKS, "pixel_mlp_ratio": 64}
        require_range(self, {**widths, **blocks})
        require_mlp_ratio(self.mlp_ratio, self.hidden)
        require_heads(self.hidden, self.num_heads)

    def build(self, *, compute: ComputeConfig, rngs: nnx.Rngs) -> "PixNerDiT":
        """Return the network; see `DenoiserConfig.build`."""
        return PixNerDiT(self, compute=compute, rngs=rngs)


# The published CoD; CoD-Lite uses 10000.
TIMESTEP_BASE = 10.0


def patch_tokens(x: Float[Array, "B H W C"], patch_size: int) -> Float[Array, "B h w D"]:
    """Return patches as vectors, channel-major: channel * pixels + pixel."""
    patches = patchify(x, patch_size).swapaxes(-1, -2)
    return patches.reshape(*patches.shape[:3], -1)


def _unit_columns(weights: jax.Array) -> jax.Array:
    """Normalise weights [..., in, out] over the input axis, in float32; norms below 1e-12 count as 1e-12."""
    weights = weights.astype(jnp.float32)
    squared = jnp.sum(weights**2, axis=-2, keepdims=True)
    return weights * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


class NeuralFieldBlock(nnx.Module):
    """Residual two-layer MLP over the pixels of a patch, with weights generated from the patch's state.

    Args:
        hidden: Channels of the state.
        features: Channels per pixel.
        mlp_ratio: Width of the MLP over `features`.
        dtype: Dtype of the computation; weights are normalised in float32.
        rngs: Source of the initial values.
    """

    def __init__(self, hidden: int, features: int, mlp_ratio: int, *, dtype: str, rngs: nnx.Rngs):
        self.dtype = dtype
        num_weights = 2 * mlp_ratio * features**2
        self.generate = Linear(
            hidden, num_weights, axes=("embed", "modulation"), dtype=dtype, kernel_init=fan_in_uniform, rngs=rngs
        )
        self.norm = RMSNorm(features)

    def __call__(self, x: Float[Array, "B h w P C"], state: Float[Array, "B h w hidden"]) -> Float[Array, "B h w P C"]:
        """Map [B, h, w, pixels, C] to the same shape."""
        grid, features = x.shape[:3], x.shape[-1]
        first, second = jnp.split(self.generate(state), 2, axis=-1)
        first = _unit_columns(first.reshape(*grid, features, -1)).astype(self.dtype)
        second = _unit_columns(second.reshape(*grid, -1, features)).astype(self.dtype)
        return x + jax.nn.silu(self.norm(x) @ first) @ second


class NeuralFieldHead(PixelHead):
    """Head of pixel CoD, whose neural-field blocks all use the same state."""

    def __init__(self, config: PixNerDiTConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        features, dtype = config.hidden_pixel, compute.dtype
        super().__init__(config.hidden, features, dtype=dtype, kernel_init=fan_in_uniform, rngs=rngs)
        self.blocks = Stack(
            lambda block_rngs: NeuralFieldBlock(
                config.hidden, features, config.pixel_mlp_ratio, dtype=dtype, rngs=block_rngs
            ),
            config.num_pixel_blocks,
            remat=compute.remat,
            unroll=compute.unroll,
            rngs=rngs,
        )

    def refine(self, x: Float[Array, "B h w P C"], state: Float[Array, "B h w hidden"]) -> Float[Array, "B h w P C"]:
        """Run the neural-field blocks."""
        return self.blocks(x, state)


class PixNerDiT(nnx.Module):
    """Transformer blocks on the patch grid, then the neural-field head.

    Args:
        config: The denoiser's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: PixNerDiTConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        hidden, dtype = config.hidden, compute.dtype
        self.timestep = TimestepEmbedding(hidden, base=TIMESTEP_BASE, uniform_bias=True, dtype=dtype, rngs=rngs)
        self.patch_embed = Linear(
            3 * PATCH_SIZE**2 + hidden,
            hidden,
            axes=("features", "embed"),
            dtype=dtype,
            kernel_init=xavier_uniform,
            rngs=rngs,
        )
        self.blocks = Stack(
            lambda block_rngs: TransformerBlock(
                hidden, config.num_heads, config.mlp_ratio, dtype=dtype, kernel_init=fan_in_uniform, rngs=block_rngs
            ),
            config.num_blocks,
            remat=compute.remat,
            unroll=compute.unroll,
            rngs=rngs,
        )
        self.head = NeuralFieldHead(config, compute=compute, rngs=rngs)

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Predict the velocity (or the image) at x_t; see `Denoiser`."""
        embedding = self.timestep(t)[:, None, None]
        patches = patch_tokens(x_t, PATCH_SIZE).astype(embedding.dtype)
        condition = condition.astype(embedding.dtype)
        state = self.patch_embed(jnp.concatenate([patches, condition], axis=-1))
        state, features = self.blocks.run(state, jax.nn.silu(embedding), features_after=features_after)
        state = jax.nn.silu(embedding + state)
        return Denoised(self.head(x_t, condition, state, by_rows=by_rows).astype(jnp.float32), features)
