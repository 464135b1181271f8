"""DDT, the denoiser of latent CoD; see docs/method.md, Denoisers."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import (
    LATENT_CHANNELS,
    LATENT_PATCH_SIZE,
    MAX_BLOCKS,
    MAX_WIDTH,
    Autoencoder,
    Denoised,
    DenoiserConfig,
    Prediction,
    require_heads,
    require_mlp_ratio,
)
from cod_jax.models.fields import require, require_range
from cod_jax.models.pixnerdit import TIMESTEP_BASE, patch_tokens
from cod_jax.nn.embeddings import TimestepEmbedding, unpatchify
from cod_jax.nn.layers import Linear, fan_in_uniform, modulate, xavier_uniform, zeros
from cod_jax.nn.norms import layer_norm
from cod_jax.nn.stack import Stack
from cod_jax.nn.transformer import TransformerBlock


@dataclasses.dataclass(frozen=True)
class DDTConfig(DenoiserConfig):
    """Description of latent CoD's transformer denoiser; the defaults are the published XL.

    Attributes:
        kind: Name of this kind of denoiser.
        hidden: Channels on the patch grid, also of the condition.
        num_heads: Attention heads; each must have a multiple of 4 channels.
        num_blocks: Transformer blocks of the encoder.
        num_decoder_blocks: Transformer blocks of the decoder.
        mlp_ratio: Width of a block's MLP over `hidden`, before the two thirds of SwiGLU.
        prediction: What the network outputs, "image" (the latents) or "velocity".
        autoencoder: Source of the latents: "sd_vae", or "space_to_depth", a fixed projection without weights that is
            only good for trying things out.
    """

    kind: Literal["ddt"] = "ddt"
    hidden: int = 1152
    num_heads: int = 16
    num_blocks: int = 22
    num_decoder_blocks: int = 6
    mlp_ratio: float = 4.0
    prediction: Prediction = "velocity"
    autoencoder: Autoencoder = "sd_vae"

    def __post_init__(self):
        widths = dict.fromkeys(("hidden", "num_heads"), MAX_WIDTH)
        require_range(self, {**widths, "num_blocks": MAX_BLOCKS, "num_decoder_blocks": MAX_BLOCKS})
        require_mlp_ratio(self.mlp_ratio, self.hidden)
        require_heads(self.hidden, self.num_heads)
        require(
            self.autoencoder != "none",
            "autoencoder must be sd_vae or space_to_depth for a denoiser of latents, got none",
        )

    def build(self, *, compute: ComputeConfig, rngs: nnx.Rngs) -> "DDT":
        """Return the network; see `DenoiserConfig.build`."""
        return DDT(self, compute=compute, rngs=rngs)


class DDT(nnx.Module):
    """Transformer of two parts: the timestep modulates the encoder, whose output modulates the decoder token by token.

    It works on latents [B, H / 8, W / 8, 4] in patches of 2x2.

    Args:
        config: The denoiser's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: DDTConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        hidden, dtype = config.hidden, compute.dtype
        num_values = LATENT_CHANNELS * LATENT_PATCH_SIZE**2

        def patch_embed() -> Linear:
            return Linear(
                num_values + hidden,
                hidden,
                axes=("features", "embed"),
                dtype=dtype,
                kernel_init=xavier_uniform,
                rngs=rngs,
            )

        def stack(num_blocks: int) -> Stack:
            return Stack(
                lambda block_rngs: TransformerBlock(
                    hidden,
                    config.num_heads,
                    config.mlp_ratio,
                    dtype=dtype,
                    kernel_init=fan_in_uniform,
                    rngs=block_rngs,
                ),
                num_blocks,
                remat=compute.remat,
                unroll=compute.unroll,
                rngs=rngs,
            )

        self.timestep = TimestepEmbedding(hidden, base=TIMESTEP_BASE, uniform_bias=True, dtype=dtype, rngs=rngs)
        self.patch_embed = patch_embed()
        self.blocks = stack(config.num_blocks)
        self.decoder_embed = patch_embed()
        self.decoder_blocks = stack(config.num_decoder_blocks)
        self.modulation = Linear(
            hidden, 2 * hidden, axes=("embed", "modulation"), dtype=dtype, kernel_init=fan_in_uniform, rngs=rngs
        )
        # float32 for the same reason as in `PixelHead`.
        make = {"dtype": "float32", "precision": jax.lax.Precision.HIGHEST, "kernel_init": zeros, "rngs": rngs}
        self.out = Linear(hidden, num_values, axes=("embed", "features"), **make)

    def __call__(
        self,
        x_t: Float[Array, "B H W 4"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Predict the velocity (or the latents) at x_t; see `Denoiser`. `by_rows` changes nothing here."""
        embedding = self.timestep(t)[:, None, None]
        patches = patch_tokens(x_t, LATENT_PATCH_SIZE).astype(embedding.dtype)
        inputs = jnp.concatenate([patches, condition.astype(embedding.dtype)], axis=-1)
        state = self.patch_embed(inputs)
        state, features = self.blocks.run(state, jax.nn.silu(embedding), features_after=features_after)
        drive = jax.nn.silu(embedding + state)
        x = self.decoder_blocks(self.decoder_embed(inputs), drive)
        shift, scale = jnp.split(self.modulation(drive), 2, axis=-1)
        values = self.out(modulate(layer_norm(x), shift, scale)).astype(jnp.float32)
        by_channel = values.reshape(*values.shape[:3], LATENT_CHANNELS, -1)
        return Denoised(unpatchify(by_channel.swapaxes(-1, -2), LATENT_PATCH_SIZE), features)
