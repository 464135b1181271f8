"""Condition codec of all models, from image to symbols to condition; see docs/method.md, Condition codec."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from cod_jax.models.bottlenecks import Quantized
from cod_jax.models.codec_config import CodecConfig
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import DenoiserConfig
from cod_jax.nn.attention import AttentionMode

# Value of every pixel of the null condition's image, outside the range of image01 on purpose.
NULL_CONDITION_VALUE = -1.0


class ConditionCodec(nnx.Module):
    """Condition encoder, bottleneck and condition decoder.

    Args:
        config: The codec's description.
        denoiser: Description of the denoiser that reads the condition.
        compute: How it is computed; quantisation is always float32.
        rngs: Source of the initial values.
    """

    def __init__(self, config: CodecConfig, denoiser: DenoiserConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        self.encoder = config.build_encoder(denoiser=denoiser, compute=compute, rngs=rngs)
        self.num_levels = config.symbols.num_levels
        self.bottleneck = config.bottleneck.build(config.latent_channels, pitch=config.pitch, rngs=rngs)
        self.decoder = config.build_decoder(denoiser=denoiser, compute=compute, rngs=rngs)

    def encode(
        self, image01: Float[Array, "B H W 3"], attention: AttentionMode | None = None
    ) -> Float[Array, "B h w C"]:
        """Return the latents of image01 in [0, 1]; by default attention works as the model's description says."""
        return self.encoder(image01) if attention is None else self.encoder(image01, attention)

    def quantize(
        self,
        z: Float[Array, "B h w F"],
        *,
        level: Int[Array, " B"] | None = None,
        noise: Float[Array, "B h w N"] | None = None,
    ) -> Quantized:
        """Quantise latents.

        Args:
            z: Latents.
            level: Quality level of each image; None stands for the best.
            noise: Random numbers for training, see `bottlenecks.Draws`.
        """
        return self.bottleneck(z, self._level(level, z), noise)

    def dequantize(
        self, symbols: Int[Array, "B h w C"], *, level: Int[Array, " B"] | None = None
    ) -> Float[Array, "B h w F"]:
        """Return the values of symbols at the quality level of each image; None stands for the best."""
        return self.bottleneck.lookup(symbols, self._level(level, symbols))

    def condition(
        self, image01: Float[Array, "B H W 3"], *, level: Int[Array, " B"] | None = None
    ) -> Float[Array, "B H16 W16 hidden"]:
        """Return the condition of image01 in [0, 1], quantised as outside of training."""
        return self.decode(self.quantize(self.encode(image01), level=level).values)

    def decode(
        self, codes: Float[Array, "B h w C"], attention: AttentionMode | None = None
    ) -> Float[Array, "B H16 W16 hidden"]:
        """Return the condition for the bottleneck's values; by default attention works as the description says."""
        return self.decoder(codes) if attention is None else self.decoder(codes, attention)

    def _level(self, level: jax.Array | None, batch: jax.Array) -> Int[Array, " B"]:
        return jnp.full(batch.shape[:1], self.num_levels - 1, jnp.int32) if level is None else level
