"""The frozen autoencoder of latent CoD: Stable Diffusion's (Rombach et al. 2022), in the version sd-vae-ft-ema.

See docs/method.md, Frozen networks.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.features.sizes import require_multiple
from cod_jax.nn.attention import SelfAttention
from cod_jax.nn.blocks import Downsample, ResBlock
from cod_jax.nn.layers import Conv, Linear
from cod_jax.nn.norms import GroupNorm

# Latents of the diffusion model are the VAE's means times this, and are divided by it before decoding. 0.18215 gives
# latents of photographs a spread of 1; the published CoD multiplies by it twice, and its weights expect that.
LATENT_SCALE = 0.18215**2

LOGVAR_RANGE = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True)
class SDVAEConfig:
    """Encoder and decoder; the defaults are the published ones.

    Attributes:
        widths: Channels of the levels from the finest to the coarsest; each level but the last halves the picture.
        encoder_blocks: Residual blocks per level of the encoder; the decoder has one more.
        latent_channels: Channels of the latent.
        num_groups: Groups of every group normalisation, a divisor of every width.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    encoder_blocks: int = 2
    latent_channels: int = 4
    num_groups: int = 32

    def __post_init__(self):
        if not self.widths:
            raise UserError("expected widths to name the channels of at least one level, got none")
        for name in ("encoder_blocks", "latent_channels", "num_groups"):
            if getattr(self, name) < 1:
                raise UserError(f"expected {name} to be at least 1, got {getattr(self, name)}")
        for width in self.widths:
            if width < 1 or width % self.num_groups:
                raise UserError(f"expected widths to be multiples of num_groups {self.num_groups}, got {self.widths}")

    @property
    def stride(self) -> int:
        """Pixels per latent position in each direction."""
        return 2 ** (len(self.widths) - 1)


class Moments(NamedTuple):
    """A normal distribution of latents without correlations, float32.

    Attributes:
        mean: [B, h, w, latent_channels].
        logvar: Logarithm of the variance, the same shape, in [-30, 20].
    """

    mean: Float[Array, "B h w C"]
    logvar: Float[Array, "B h w C"]

    @property
    def std(self) -> Float[Array, "B h w C"]:
        """Standard deviation."""
        return jnp.exp(0.5 * self.logvar)

    def sample(self, noise: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Return the latents that standard normal noise draws from the distribution."""
        return self.mean + self.std * noise

    @classmethod
    def from_channels(cls, channels: Float[Array, "B h w C2"]) -> "Moments":
        """Split [B, h, w, 2 * latent_channels] into means and logarithms of variances, and clip the latter."""
        mean, logvar = jnp.split(channels.astype(jnp.float32), 2, axis=-1)
        return cls(mean, jnp.clip(logvar, *LOGVAR_RANGE))


class Level(nnx.Module):
    """Residual blocks, then a layer that changes the resolution, if any."""

    def __init__(self, blocks: list[ResBlock], resample: nnx.Module | None):
        self.blocks = nnx.List(blocks)
        self.resample = nnx.data(resample)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
        """Map [B, H, W, C] to half, the same or twice the resolution."""
        for block in self.blocks:
            x = block(x)
        return x if self.resample is None else self.resample(x)


class Middle(nnx.Module):
    """Residual block, attention over all positions, residual block."""

    def __init__(self, features: int, num_groups: int, *, dtype: str, rngs: nnx.Rngs):
        self.block1 = ResBlock(features, features, num_groups, dtype=dtype, rngs=rngs)
        self.attention = SelfAttention(features, num_groups, window=1, dtype=dtype, rngs=rngs)
        self.block2 = ResBlock(features, features, num_groups, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Map [B, H, W, C]."""
        return self.block2(self.attention(self.block1(x), "global"))


class UpsampleConv(nnx.Module):
    """Nearest-neighbour enlargement by 2, then a 3x3 convolution."""

    def __init__(self, features: int, *, dtype: str, rngs: nnx.Rngs):
        self.conv = Conv(features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
        """Map [B, H, W, C] to [B, 2 H, 2 W, C]."""
        return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))


class VAEEncoder(nnx.Module):
    """Picture to the channels of the moments, before the last 1x1 convolution."""

    def __init__(self, config: SDVAEConfig, *, dtype: str, rngs: nnx.Rngs):
        groups, widths = config.num_groups, config.widths
        self.conv_in = Conv(3, widths[0], dtype=dtype, rngs=rngs)
        levels = []
        channels = widths[0]
        for level, width in enumerate(widths):
            blocks = []
            for _ in range(config.encoder_blocks):
                blocks.append(ResBlock(channels, width, groups, dtype=dtype, rngs=rngs))
                channels = width
            is_last = level == len(widths) - 1
            levels.append(Level(blocks, None if is_last else Downsample(width, dtype=dtype, rngs=rngs)))
        self.levels = nnx.List(levels)
        self.middle = Middle(channels, groups, dtype=dtype, rngs=rngs)
        self.norm_out = GroupNorm(channels, groups)
        self.conv_out = Conv(channels, 2 * config.latent_channels, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C2"]:
        """Map [B, H, W, 3] in [-1, 1] to [B, H / stride, W / stride, 2 * latent_channels]."""
        x = self.conv_in(image)
        for level in self.levels:
            x = level(x)
        return self.conv_out(jax.nn.silu(self.norm_out(self.middle(x))))


class VAEDecoder(nnx.Module):
    """Latent to picture, after the first 1x1 convolution. Level 0 is the coarsest."""

    def __init__(self, config: SDVAEConfig, *, dtype: str, rngs: nnx.Rngs):
        groups, widths = config.num_groups, config.widths[::-1]
        self.conv_in = Conv(config.latent_channels, widths[0], dtype=dtype, rngs=rngs)
        self.middle = Middle(widths[0], groups, dtype=dtype, rngs=rngs)
        levels = []
        channels = widths[0]
        for level, width in enumerate(widths):
            blocks = []
            for _ in range(config.encoder_blocks + 1):
                blocks.append(ResBlock(channels, width, groups, dtype=dtype, rngs=rngs))
                channels = width
            is_last = level == len(widths) - 1
            levels.append(Level(blocks, None if is_last else UpsampleConv(width, dtype=dtype, rngs=rngs)))
        self.levels = nnx.List(levels)
        self.norm_out = GroupNorm(channels, groups)
        self.conv_out = Conv(channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Map [B, h, w, latent_channels] to [B, h * stride, w * stride, 3]."""
        x = self.middle(self.conv_in(x))
        for level in self.levels:
            x = level(x)
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


class SDVAE(nnx.Module):
    """Pictures to latents and back.

    Args:
        config: The network's description.
        dtype: Dtype of the computation, "float32" or "bfloat16"; norm statistics, the attention's softmax and the
            results are float32, as are the parameters.
        rngs: Source of the initial values.
    """

    def __init__(self, config: SDVAEConfig, *, dtype: str, rngs: nnx.Rngs):
        self.config = config
        self.encoder = VAEEncoder(config, dtype=dtype, rngs=rngs)
        self.decoder = VAEDecoder(config, dtype=dtype, rngs=rngs)
        axes = ("conv_in", "conv_out")
        channels = config.latent_channels
        self.to_moments = Linear(2 * channels, 2 * channels, axes=axes, dtype=dtype, rngs=rngs)
        self.from_latent = Linear(channels, channels, axes=axes, dtype=dtype, rngs=rngs)

    def encode_moments(self, image: Float[Array, "B H W 3"]) -> Moments:
        """Return the distribution of the latents of pictures [B, H, W, 3] in [-1, 1], not scaled by LATENT_SCALE.

        Raises:
            UserError: A side is not a multiple of the stride.
        """
        require_multiple(image, self.config.stride)
        return Moments.from_channels(self.to_moments(self.encoder(image)))

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return pictures of about [-1, 1], not clipped, float32, of latents that are not scaled by LATENT_SCALE."""
        return self.decoder(self.from_latent(latent)).astype(jnp.float32)
