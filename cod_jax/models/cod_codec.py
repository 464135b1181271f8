"""Condition codec of the published models; see docs/method.md, Condition codec."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal

import jax
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from cod_jax.models.bottlenecks import BottleneckConfig, CodebookConfig
from cod_jax.models.codec_config import CodecConfig
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import MAX_WIDTH, PATCH_SIZE, DenoiserConfig
from cod_jax.models.fields import require, require_range
from cod_jax.nn.attention import AttentionMode, SelfAttention
from cod_jax.nn.blocks import Downsample, ResBlock, Upsample
from cod_jax.nn.layers import Conv, zeros
from cod_jax.nn.norms import GroupNorm

WINDOW = 32
# The released CoD-Lite uses smaller windows in the last encoder level and in the decoder of its deep codec.
DEEP_WINDOW = 16
# Possible numbers of downsamplings after the encoder's first convolution; six makes the deep encoder of the 64-bit
# models.
ENCODER_DEPTHS = (1, 2, 3, 4, 6)


@dataclasses.dataclass(frozen=True)
class ConditionCodecConfig(CodecConfig):
    """Description of the published condition codec; see docs/method.md, Condition codec.

    Attributes:
        pitch: Pixels per symbol in each direction, a power of two.
        input_stride: Stride of the encoder's first convolution, 1 or 2 (2 in the models trained at 512 pixels).
        encoder_width: Channels of the encoder's first level.
        latent_channels: Channels of the latents.
        bottleneck: Description of the bottleneck, which turns latents into symbols.
        decoder_depth: Pairs of residual block and attention in the condition decoder, 2 (CoD-Lite) or 3 (CoD).
        num_groups: Groups of every group normalisation.
        attention: Reach of the codec's attention, in training and in use. The published CoD-Lite trains with global
            attention and cuts windows in use only, which no setting reproduces.
        kind: Name of this kind of condition codec.
    """

    pitch: int = 16
    input_stride: int = 1
    encoder_width: int = 128
    latent_channels: int = 128
    bottleneck: BottleneckConfig = dataclasses.field(default_factory=CodebookConfig)
    decoder_depth: int = 2
    num_groups: int = 32
    attention: AttentionMode = "window_masked"  # pyright: ignore[reportIncompatibleVariableOverride]
    kind: Literal["cod"] = "cod"

    def __post_init__(self):
        require(self.input_stride in (1, 2), f"input_stride must be 1 or 2, got {self.input_stride}")
        require(
            self.pitch > 0 and self.pitch % self.input_stride == 0 and self.pitch & (self.pitch - 1) == 0,
            f"pitch must be a power of two and a multiple of input_stride {self.input_stride}, got {self.pitch}",
        )
        require(
            self.num_downsamples in ENCODER_DEPTHS,
            f"pitch {self.pitch} with input_stride {self.input_stride} needs {self.num_downsamples} downsamplings, but "
            f"the encoder has {', '.join(map(str, ENCODER_DEPTHS[:-1]))} or {ENCODER_DEPTHS[-1]}; change the pitch",
        )
        require(
            4 <= self.pitch <= 128 and (self.pitch <= 32 or self.num_downsamples == 6),
            f"pitch must be between 4 and 32, or 64 or 128 with six downsamplings, got {self.pitch}",
        )
        require(self.decoder_depth in (2, 3), f"decoder_depth must be 2 or 3, got {self.decoder_depth}")
        require_range(self, {"latent_channels": MAX_WIDTH, "encoder_width": MAX_WIDTH, "num_groups": MAX_WIDTH})
        require(
            self.encoder_width % self.num_groups == 0,
            f"encoder_width must be a multiple of num_groups {self.num_groups}, got {self.encoder_width}",
        )

    @property
    def num_downsamples(self) -> int:
        """Number of stride-2 layers after the encoder's first convolution."""
        return int(math.log2(max(self.pitch, 1) // self.input_stride))

    @property
    def is_deep(self) -> bool:
        """Whether this is the deep codec of the 64-bit models (published ds 128)."""
        return self.num_downsamples == ENCODER_DEPTHS[-1]

    @property
    def encoding_bytes_per_pixel(self) -> float:
        """Memory in bytes that the encoder takes per pixel, approximately; it works at full or half resolution."""
        return 1600.0 if self.input_stride == 1 else 500.0

    def stored(self) -> dict[str, Any]:
        """Return the fields in model folders, which have no kind, as when there was only one."""
        return {name: value for name, value in super().stored().items() if name != "kind"}

    def check_denoiser(self, denoiser: DenoiserConfig) -> None:
        """Check that the groups of the normalisations divide the condition's channels; see `CodecConfig`."""
        require(
            denoiser.hidden % self.num_groups == 0,
            f"denoiser.hidden must be a multiple of codec.num_groups {self.num_groups}, got {denoiser.hidden}",
        )
        require(denoiser.kind != "compact", "a denoiser of kind compact needs a codec of kind compact, got kind cod")

    def build_encoder(self, *, denoiser: DenoiserConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> "ConditionEncoder":
        """Return the encoder; see `CodecConfig.build_encoder`."""
        return ConditionEncoder(self, dtype=compute.dtype, kernel_init=denoiser.codec_init, rngs=rngs)

    def build_decoder(self, *, denoiser: DenoiserConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> "ConditionDecoder":
        """Return the condition decoder; see `CodecConfig.build_decoder`."""
        make: dict[str, Any] = {"dtype": compute.dtype, "kernel_init": denoiser.codec_init, "rngs": rngs}
        return ConditionDecoder(self, denoiser.hidden, **make)


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
        self.attention: AttentionMode = config.attention
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

    def __call__(
        self, image01: Float[Array, "B H W 3"], attention: AttentionMode | None = None
    ) -> Float[Array, "B h w C"]:
        """Encode image01 in [0, 1], or the null condition, which is -1 everywhere.

        By default attention works as the description says.
        """
        attention = attention or self.attention
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
        self.attention: AttentionMode = config.attention
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

    def __call__(
        self, codes: Float[Array, "B h w C"], attention: AttentionMode | None = None
    ) -> Float[Array, "B H16 W16 hidden"]:
        """Decode the bottleneck's values [B, h, w, latent_channels]; by default attention works as described."""
        attention = attention or self.attention
        x = _run(self.layers, self.conv_in(codes), attention)
        return _run(self.output, jax.nn.silu(self.norm_out(x)), attention)
