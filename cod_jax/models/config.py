"""Descriptions of whole models, which are frozen, validated, and stored with the weights."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError
from cod_jax.models.bottlenecks import BottleneckConfig, CodebookConfig
from cod_jax.models.dconv import DConvConfig
from cod_jax.models.denoiser import LATENT_CHANNELS, LATENT_PATCH_SIZE, MAX_WIDTH, PATCH_SIZE, DenoiserConfig
from cod_jax.models.fields import from_mapping, require, require_range
from cod_jax.nn.attention import AttentionMode

# Possible numbers of downsamplings after the encoder's first convolution; six makes the deep encoder of the 64-bit
# models.
ENCODER_DEPTHS = (1, 2, 3, 4, 6)


@dataclasses.dataclass(frozen=True)
class ConditionCodecConfig:
    """Condition encoder, bottleneck and condition decoder; see docs/method.md, Condition codec.

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
    """

    pitch: int = 16
    input_stride: int = 1
    encoder_width: int = 128
    latent_channels: int = 128
    bottleneck: BottleneckConfig = dataclasses.field(default_factory=CodebookConfig)
    decoder_depth: int = 2
    num_groups: int = 32
    attention: AttentionMode = "window_masked"

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
    def symbols(self) -> SymbolFormat:
        """Format of the symbols."""
        return self.bottleneck.symbols(self.latent_channels)

    @property
    def nominal_bits_per_pixel(self) -> float | None:
        """Bits per pixel without entropy coding and header, or None if the rate depends on the picture."""
        bits = self.bottleneck.nominal_bits
        return None if bits is None else bits / self.pitch**2


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole model of condition codec and denoiser.

    Attributes:
        codec: Description of the condition codec.
        denoiser: Description of the denoiser.
    """

    codec: ConditionCodecConfig = dataclasses.field(default_factory=ConditionCodecConfig)
    denoiser: DenoiserConfig = dataclasses.field(default_factory=DConvConfig)

    def __post_init__(self):
        require(
            self.denoiser.hidden % self.codec.num_groups == 0,
            f"denoiser.hidden must be a multiple of codec.num_groups {self.codec.num_groups}, got "
            f"{self.denoiser.hidden}",
        )

    @property
    def is_latent(self) -> bool:
        """Whether the denoiser works on latents of a frozen autoencoder instead of pixels."""
        return self.denoiser.autoencoder != "none"

    @property
    def has_learned_autoencoder(self) -> bool:
        """Whether the latents come from a network with weights."""
        return self.denoiser.autoencoder == "sd_vae"

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels, or in latents if the denoiser works on them."""
        return LATENT_PATCH_SIZE if self.is_latent else PATCH_SIZE

    @property
    def channels(self) -> int:
        """Channels of the denoiser's input and output."""
        return LATENT_CHANNELS if self.is_latent else 3

    def values_shape(self, image_shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Return the denoiser's input shape for images [B, H, W, 3] whose sides are multiples of `size_multiple`."""
        batch, height, width, _ = image_shape
        scale = PATCH_SIZE // self.patch_size
        return batch, height // scale, width // scale, self.channels

    @property
    def size_multiple(self) -> int:
        """Number of pixels of which both sides of a picture must be multiples."""
        return max(self.codec.pitch, PATCH_SIZE)

    @property
    def sampling_method(self) -> Literal["euler", "adams"]:
        """Sampler that suits the prediction: Adams for velocities, Euler for images."""
        return "adams" if self.denoiser.prediction == "velocity" else "euler"

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values as a model folder stores them, with the fields of `BottleneckConfig.stored`."""
        values = dataclasses.asdict(self)
        codec: dict[str, Any] = {}
        for name, value in values["codec"].items():
            codec |= self.codec.bottleneck.stored() if name == "bottleneck" else {name: value}
        return {**values, "codec": codec}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, trusted: bool = False) -> "ModelConfig":
        """Undo `to_dict`; missing fields take their defaults.

        Args:
            values: Nested plain values.
            trusted: Whether kinds of other packages may be imported; see `plugins.resolve`.

        Raises:
            UserError: A field is unknown or has an unusable value.
        """
        return from_mapping(cls, with_bottleneck(values), "model", trusted=trusted)


def with_bottleneck(model: Any) -> Any:
    """Return a model's plain values with its bottleneck in one field; undoes `BottleneckConfig.stored`.

    Values without such fields come back unchanged, even if they are unusable.
    """
    codec = model.get("codec") if isinstance(model, Mapping) else None
    if not isinstance(codec, Mapping) or not codec.keys() & {"codebook_bits", "factorized"}:
        return model
    rest = {name: value for name, value in codec.items() if name not in ("codebook_bits", "factorized")}
    if "bottleneck" in codec:
        raise UserError("model.codec must hold bottleneck alone, got codebook_bits or factorized beside it")
    bits, factorized = codec.get("codebook_bits", 4), codec.get("factorized")
    if factorized is None:
        bottleneck: Any = {"kind": "codebook", "bits": bits}
    elif bits != 0:
        raise UserError(f"model.codec.codebook_bits must be 0 beside a factorized bottleneck, got {bits!r}")
    else:
        bottleneck = {**factorized, "kind": "factorized"} if isinstance(factorized, Mapping) else factorized
    return {**model, "codec": {**rest, "bottleneck": bottleneck}}
