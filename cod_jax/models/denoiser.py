"""The interface of denoisers: their description and what they compute."""

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from cod_jax.models.compute import ComputeConfig
from cod_jax.models.fields import Part, require
from cod_jax.nn.layers import fan_in_uniform

Prediction = Literal["image", "velocity"]
Autoencoder = Literal["none", "sd_vae", "space_to_depth"]

# Pixels per side of a condition cell; every published model uses this grid.
PATCH_SIZE = 16
# The latents of latent CoD: every 8x8 pixels are 4 numbers, so that a condition cell is 2x2 of them.
LATENT_STRIDE = 8
LATENT_CHANNELS = 4
LATENT_PATCH_SIZE = PATCH_SIZE // LATENT_STRIDE
# Far beyond any sensible model: a description from an untrusted file must not build for hours.
MAX_WIDTH = 2**14
MAX_BLOCKS = 1024
MAX_PIXEL_BLOCKS = 64


class Denoised(NamedTuple):
    """What a denoiser returns.

    Attributes:
        prediction: Image or latents, or their velocity, like x_t, float32.
        features: State [B, h, w, hidden] after the block asked for, or None.
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
        """Predict.

        Args:
            x_t: Noisy image or latents.
            t: Timesteps in [0, 1].
            condition: Condition on the patch grid.
            features_after: Number of the block whose output is returned too; 1 is the first.
            by_rows: Spare memory where a head works pixel by pixel, see `PixelHead`.
        """
        ...


class DenoiserConfig(Part):
    """Description of a denoiser; a subclass is a frozen dataclass with the fields below.

    Attributes:
        kind: Which denoiser this is.
        hidden: Channels on the patch grid, also of the condition.
        num_blocks: Blocks; the features after one of them can be aligned with those of another network.
        prediction: What the network outputs, "image" or "velocity".
        autoencoder: Where latents come from; "none" works on pixels.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "dconv": "cod_jax.models.dconv:DConvConfig",
        "pixnerdit": "cod_jax.models.pixnerdit:PixNerDiTConfig",
        "ddt": "cod_jax.models.ddt:DDTConfig",
    }
    autoencoder: Autoencoder = "none"
    hidden: int
    num_blocks: int
    prediction: Prediction

    @property
    def codec_init(self) -> Initializer:
        """Initialiser of the condition codec's kernels that goes with this denoiser."""
        return fan_in_uniform

    def build(self, *, compute: ComputeConfig, rngs: nnx.Rngs) -> Denoiser:
        """Return the network, an NNX module.

        Args:
            compute: How it is computed.
            rngs: Source of the initial values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")


def require_mlp_ratio(mlp_ratio: float, hidden: int) -> None:
    """Refuse a ratio with which an MLP has no width, or a senseless one.

    Raises:
        UserError: It is out of range.
    """
    # Two thirds of it are SwiGLU's width.
    require(hidden * mlp_ratio >= 2, f"mlp_ratio {mlp_ratio} leaves an MLP over {hidden} channels without width")
    require(mlp_ratio <= 64, f"mlp_ratio must be at most 64, got {mlp_ratio}")


def require_heads(hidden: int, num_heads: int) -> None:
    """Refuse a number of attention heads for which there are no rotary positions.

    Raises:
        UserError: The channels of a head are not a multiple of 4.
    """
    require(
        hidden % (4 * num_heads) == 0,
        f"hidden must be a multiple of 4 num_heads, {4 * num_heads}, got {hidden}: rotary positions need heads of 4, "
        "8, ... channels",
    )
