"""Interface of denoisers."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from cod_jax.models.compute import ComputeConfig
from cod_jax.models.fields import Part, require
from cod_jax.nn.layers import fan_in_uniform

Prediction = Literal["image", "velocity"]
Autoencoder = Literal["none", "sd_vae", "space_to_depth"]

# Side of a condition cell in pixels; every published model uses this grid.
PATCH_SIZE = 16
# Latent CoD turns 8x8 pixels into 4 numbers, so a condition cell covers 2x2 latents.
LATENT_STRIDE = 8
LATENT_CHANNELS = 4
LATENT_PATCH_SIZE = PATCH_SIZE // LATENT_STRIDE
# Limits far beyond any sensible model: building the shapes of 256 blocks takes seconds, and a description may come from
# an untrusted file.
MAX_WIDTH = 2**14
MAX_BLOCKS = 256
MAX_PIXEL_BLOCKS = 64


class Denoised(NamedTuple):
    """Output of a denoiser.

    Attributes:
        prediction: Image, latents, or their velocity, float32 with the shape of x_t.
        features: State [B, h, w, hidden] after the requested block, or None.
    """

    prediction: Float[Array, "B H W C"]
    features: Float[Array, "B h w hidden"] | None


@runtime_checkable
class Denoiser(Protocol):
    """A network that predicts the image or the velocity from x_t, the timestep and the condition."""

    def __call__(
        self,
        x_t: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Return the prediction at x_t.

        Args:
            x_t: Noisy image or latents.
            t: Timesteps in [0, 1].
            condition: Condition on the patch grid.
            features_after: Number of the block whose output is also returned; 1 is the first.
            by_rows: Save memory in a head that works pixel by pixel, see `PixelHead`.
        """
        ...


class DenoiserConfig(Part):
    """Description of a denoiser; subclasses are frozen dataclasses with the fields below.

    Attributes:
        kind: Name of this kind of denoiser.
        hidden: Channels on the patch grid, also of the condition.
        num_blocks: Number of blocks. Training can align the features after one of them with another network's.
        prediction: Output of the network, "image" or "velocity".
        autoencoder: Source of the latents; "none" means that the network works on pixels.
        OPTIONAL: Wildcard patterns of a model's parameters that others of this kind lack. A run that starts from one of
            them has fresh ones, or leaves them behind.
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    FAMILY: ClassVar[Mapping[str, str]] = {
        "dconv": "cod_jax.models.dconv:DConvConfig",
        "compact": "cod_jax.models.compact:CompactDenoiserConfig",
        "pixnerdit": "cod_jax.models.pixnerdit:PixNerDiTConfig",
        "ddt": "cod_jax.models.ddt:DDTConfig",
    }
    autoencoder: Autoencoder = "none"
    hidden: int
    num_blocks: int
    prediction: Prediction

    @property
    def codec_init(self) -> Initializer:
        """Initialiser of the condition codec's kernels in models with this denoiser."""
        return fan_in_uniform

    def build(self, *, compute: ComputeConfig, rngs: nnx.Rngs) -> Denoiser:
        """Return the network, an NNX module.

        Args:
            compute: How it is computed.
            rngs: Source of the initial values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def stored(self) -> dict[str, Any]:
        """Return plain values as a model folder stores them; a part that came later is left out where there is none.

        So older models keep their fingerprints.
        """
        return dataclasses.asdict(self)  # pyright: ignore[reportArgumentType]


def require_mlp_ratio(mlp_ratio: float, hidden: int) -> None:
    """Check the width of an MLP relative to the number of channels.

    Raises:
        UserError: The ratio is out of range.
    """
    # SwiGLU takes two thirds of this width, which must leave at least one channel.
    smallest = 2 / hidden
    require(mlp_ratio >= smallest, f"mlp_ratio must be at least {smallest:g} for {hidden} channels, got {mlp_ratio}")
    require(mlp_ratio <= 64, f"mlp_ratio must be at most 64, got {mlp_ratio}")


def require_heads(hidden: int, num_heads: int) -> None:
    """Check that rotary positions exist for a number of attention heads.

    Raises:
        UserError: The channels of a head are not a multiple of 4.
    """
    require(
        hidden % (4 * num_heads) == 0,
        f"hidden must be a multiple of 4 num_heads, {4 * num_heads}, got {hidden}; rotary positions need heads with a "
        "multiple of 4 channels",
    )
