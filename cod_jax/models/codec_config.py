"""Interface of the descriptions of condition codecs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from cod_jax.coding.symbols import SymbolFormat
from cod_jax.models.bottlenecks import BottleneckConfig
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import DenoiserConfig
from cod_jax.models.fields import Part
from cod_jax.models.functional import Params
from cod_jax.models.patch_transform import PatchMoments
from cod_jax.nn.attention import AttentionMode


class CodecConfig(Part):
    """Description of a condition encoder, a bottleneck and a condition decoder; subclasses are frozen dataclasses.

    Attributes:
        kind: Name of this kind of condition codec.
        pitch: Pixels per symbol in each direction, a power of two.
        latent_channels: Channels of the latents.
        bottleneck: Description of the bottleneck, which turns latents into symbols.
        attention: Reach of the codec's attention, in training and in use; None where it has none.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "cod": "cod_jax.models.config:ConditionCodecConfig",
        "compact": "cod_jax.models.compact:CompactCodecConfig",
    }
    pitch: int
    latent_channels: int
    bottleneck: BottleneckConfig
    attention: AttentionMode | None

    @property
    def is_deep(self) -> bool:
        """Whether this is the deep codec of the 64-bit models."""
        return False

    @property
    def symbols(self) -> SymbolFormat:
        """Format of the symbols."""
        return self.bottleneck.symbols(self.latent_channels)

    @property
    def nominal_bits_per_pixel(self) -> float | None:
        """Bits per pixel without entropy coding and header, or None if the rate depends on the picture."""
        bits = self.bottleneck.nominal_bits
        return None if bits is None else bits / self.pitch**2

    def stored(self) -> dict[str, Any]:
        """Return plain values as a model folder stores them, with the fields of `BottleneckConfig.stored`."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            values |= self.bottleneck.stored() if field.name == "bottleneck" else {field.name: value}
        return values

    @property
    def encoding_bytes_per_pixel(self) -> float:
        """Memory in bytes that the encoder takes per pixel, estimated low, because pictures are refused by it."""
        return 50.0

    def reach(self, denoiser: DenoiserConfig) -> tuple[int, int] | None:
        """Return how many cells of 16x16 pixels encoder and one-step decoder see around each; None without a limit.

        Models with a limit can be computed in tiles, see `codec.tiles`.
        """
        return None

    def check_denoiser(self, denoiser: DenoiserConfig) -> None:
        """Refuse denoisers that do not go with this codec.

        Raises:
            UserError: With the field to change.
        """

    def build_encoder(self, *, denoiser: DenoiserConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> Any:
        """Return the module from image01 [B, H, W, 3] in [0, 1] to latents [B, H / pitch, W / pitch, latent_channels].

        Args:
            denoiser: Description of the denoiser that goes with it.
            compute: How it is computed.
            rngs: Source of the initial values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build_encoder")

    def build_decoder(self, *, denoiser: DenoiserConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> Any:
        """Return the module from latents to the condition [B, H / 16, W / 16, denoiser.hidden].

        Args:
            denoiser: Description of the denoiser that reads the condition.
            compute: How it is computed.
            rngs: Source of the initial values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build_decoder")

    @property
    def fits_pictures(self) -> bool:
        """Whether fresh models of this kind start from moments of training pictures; see `fit`."""
        return False

    def fit(self, params: Params, moments: PatchMoments, denoiser: DenoiserConfig) -> Params:
        """Return the parameters of a fresh model for training pictures; by default unchanged.

        Args:
            params: Parameters of the model.
            moments: Moments of the patches of the pictures.
            denoiser: Description of the denoiser.
        """
        return params
