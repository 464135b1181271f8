"""Descriptions of whole models, which are frozen, validated, and stored with the weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cod_jax.errors import UserError
from cod_jax.models.cod_codec import ConditionCodecConfig
from cod_jax.models.codec_config import CodecConfig
from cod_jax.models.dconv import DConvConfig
from cod_jax.models.denoiser import LATENT_CHANNELS, LATENT_PATCH_SIZE, PATCH_SIZE, DenoiserConfig
from cod_jax.models.fields import from_mapping


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole model of condition codec and denoiser.

    Attributes:
        codec: Description of the condition codec.
        denoiser: Description of the denoiser.
    """

    codec: CodecConfig = dataclasses.field(default_factory=ConditionCodecConfig)
    denoiser: DenoiserConfig = dataclasses.field(default_factory=DConvConfig)

    def __post_init__(self):
        self.codec.check_denoiser(self.denoiser)

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
        return {**dataclasses.asdict(self), "codec": self.codec.stored(), "denoiser": self.denoiser.stored()}

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
