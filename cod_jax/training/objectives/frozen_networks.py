"""Frozen networks that losses compare with."""

import dataclasses
from collections.abc import Mapping, Sequence

from cod_jax.features.dinov2 import DINOv2, DINOv2Config
from cod_jax.features.lpips import LPIPS
from cod_jax.features.sd_vae import SDVAEConfig
from cod_jax.features.trunk import ALEXNET, VGG16, Stage
from cod_jax.models.compute import Dtype
from cod_jax.models.functional import Functional


@dataclasses.dataclass(frozen=True)
class FrozenNetworks:
    """Descriptions of the frozen networks; the defaults are the published ones.

    Attributes:
        dtype: Dtype of their computation.
        dinov2: Network for feature alignment and for the discriminator.
        vae: Autoencoder of latent models.
        lpips: Trunks of LPIPS by the name of the loss term.
    """

    dtype: Dtype = "float32"
    dinov2: DINOv2Config = dataclasses.field(default_factory=DINOv2Config)
    vae: SDVAEConfig = dataclasses.field(default_factory=SDVAEConfig)
    lpips: Mapping[str, Sequence[Stage]] = dataclasses.field(
        default_factory=lambda: {"lpips_vgg": VGG16, "lpips_alex": ALEXNET}
    )

    def build_dinov2(self) -> Functional[DINOv2]:
        """Return DINOv2 as a pure function of its parameters."""
        return Functional(lambda rngs: DINOv2(self.dinov2, dtype=self.dtype, rngs=rngs))

    def build_lpips(self, name: str) -> Functional[LPIPS]:
        """Return LPIPS with one of the trunks as a pure function of its parameters."""
        return Functional(lambda rngs: LPIPS(self.lpips[name], dtype=self.dtype, rngs=rngs))
