"""Condition codec of all models, from image to symbols to condition; see docs/method.md, Condition codec."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, Int

from cod_jax.models.bottlenecks import Quantized
from cod_jax.models.config import ConditionCodecConfig
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.nn.attention import AttentionMode, SelfAttention
from cod_jax.nn.blocks import Downsample, ResBlock, Upsample
from cod_jax.nn.layers import Conv, xavier_uniform, zeros
from cod_jax.nn.norms import GroupNorm

# Value of every pixel of the null condition's image, outside the range of image01 on purpose.
NULL_CONDITION_VALUE = -1.0

WINDOW = 32
# The released CoD-Lite uses smaller windows in the last encoder level and in the decoder of its deep codec.
DEEP_WINDOW = 16


def _run(layers: Iterable[Any], x: jax.Array, attention: AttentionMode) -> jax.Array:
    for layer in layers:
        x = layer(x, attention) if isinstance(layer, SelfAttention) else layer(x)
    return x


class ConditionEncoder(nnx.Module):
    """Network from the image to latents [B, H / pitch, W / pitch, latent_channels].

    It has four levels of two residual blocks with widths c, c, 2c, 2c. A level with attention at 4c follows (in the
    deep codec another at 8c), and then a middle block.
    """

    def __init__(self, config: ConditionCodecConfig, *, dtype: str, kernel_init: Initializer, rngs: nnx.Rngs):
        width, groups = config.encoder_width, config.num_groups
        window = DEEP_WINDOW if config.is_deep else WINDOW

        make = {"dtype": dtype, "kernel_init": kernel_init, "rngs": rngs}

        def res(in_features: int, out_features: int) -> ResBlock:
            return ResBlock(in_features, out_features, groups, **make)

        def attention(features: int, window: int) -> SelfAttention:
            return SelfAttention(features, groups, window=window, **make)

        self.conv_in = Conv(3, width, stride=config.input_stride, uniform_bias=True, **make)
        levels = []
        channels = width
        for level, features in enumerate((width, width, 2 * width, 2 * width)):
            layers: list[nnx.Module] = [res(channels, features), res(features, features)]
            if level < config.num_downsamples:
                layers.append(Downsample(features, **make))
            levels.append(nnx.List(layers))
            channels = features
        layers = []
        for features in (4 * width, 8 * width) if config.is_deep else (4 * width,):
            layers += [res(channels, features), attention(features, window)]
            layers += [res(features, features), attention(features, window)]
            if config.is_deep:
                layers.append(Downsample(features, **make))
            channels = features
        levels.append(nnx.List(layers))
        self.levels = nnx.List(levels)
        self.middle = nnx.List([res(channels, channels), attention(channels, WINDOW), res(channels, channels)])
        self.norm_out = GroupNorm(channels, groups)
        self.conv_out = Conv(channels, config.latent_channels, **make)

    def __call__(self, image01: Float[Array, "B H W 3"], attention: AttentionMode) -> Float[Array, "B h w C"]:
        """Encode image01 in [0, 1], or the null condition, which is -1 everywhere."""
        x = self.conv_in(image01)
        for layers in self.levels:
            x = _run(layers, x, attention)
        x = _run(self.middle, x, attention)
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


class ConditionDecoder(nnx.Module):
    """Network from the bottleneck's values to the condition on the 16-pixel grid, [B, H / 16, W / 16, hidden].

    The output convolution and the second convolution of each upsampling start at zero, as the published CoD intends. At
    pitch 4 there are three output layers, of which only the last starts at zero: three zeros in a row never learn.
    """

    def __init__(
        self, config: ConditionCodecConfig, hidden: int, *, dtype: str, kernel_init: Initializer, rngs: nnx.Rngs
    ):
        groups = config.num_groups
        window = DEEP_WINDOW if config.is_deep else WINDOW

        make = {"dtype": dtype, "kernel_init": kernel_init, "rngs": rngs}

        def res() -> ResBlock:
            return ResBlock(hidden, hidden, groups, **make)

        def attention() -> SelfAttention:
            return SelfAttention(hidden, groups, window=window, **make)

        def up() -> Upsample:
            return Upsample(hidden, groups, **make)

        self.conv_in = Conv(config.latent_channels, hidden, uniform_bias=True, **make)
        layers: list[nnx.Module] = []
        if config.is_deep:
            layers += [res(), attention(), up(), res(), attention(), up(), res(), attention(), res()]
        else:
            for _ in range(config.decoder_depth):
                layers += [res(), attention()]
            layers.append(res())
        self.layers = nnx.List(layers)
        self.norm_out = GroupNorm(hidden, groups)
        grid = config.pitch // (4 if config.is_deep else 1)
        if grid == PATCH_SIZE // 4:
            first = Conv(hidden, hidden, stride=2, **make)
            last = Conv(hidden, hidden, stride=2, dtype=dtype, kernel_init=zeros, rngs=rngs)
            output: list[nnx.Module] = [first, res(), last]
        else:
            stride = 2 if grid == PATCH_SIZE // 2 else 1
            output = [Conv(hidden, hidden, stride=stride, dtype=dtype, kernel_init=zeros, rngs=rngs)]
            if grid == 2 * PATCH_SIZE:
                output.append(up())
        self.output = nnx.List(output)

    def __call__(self, codes: Float[Array, "B h w C"], attention: AttentionMode) -> Float[Array, "B H16 W16 hidden"]:
        """Decode the bottleneck's values [B, h, w, latent_channels]."""
        x = _run(self.layers, self.conv_in(codes), attention)
        return _run(self.output, jax.nn.silu(self.norm_out(x)), attention)


class ConditionCodec(nnx.Module):
    """Condition encoder, bottleneck and condition decoder.

    Args:
        config: The codec's description.
        hidden: Channels of the condition.
        dtype: Dtype of the computation; quantisation is always float32.
        kernel_init: Initialiser of the kernels that do not start at zero.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        config: ConditionCodecConfig,
        hidden: int,
        *,
        dtype: str,
        kernel_init: Initializer = xavier_uniform,
        rngs: nnx.Rngs,
    ):
        self.attention: AttentionMode = config.attention
        self.encoder = ConditionEncoder(config, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
        self.num_levels = config.symbols.num_levels
        self.bottleneck = config.bottleneck.build(config.latent_channels, pitch=config.pitch, rngs=rngs)
        self.decoder = ConditionDecoder(config, hidden, dtype=dtype, kernel_init=kernel_init, rngs=rngs)

    def encode(
        self, image01: Float[Array, "B H W 3"], attention: AttentionMode | None = None
    ) -> Float[Array, "B h w C"]:
        """Return the latents of image01 in [0, 1]; by default attention works as the model's description says."""
        return self.encoder(image01, attention or self.attention)

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
        return self.decoder(codes, attention or self.attention)

    def _level(self, level: jax.Array | None, batch: jax.Array) -> Int[Array, " B"]:
        return jnp.full(batch.shape[:1], self.num_levels - 1, jnp.int32) if level is None else level
