"""Compact condition codec and denoiser, which work at 1/16 and 1/4 of the resolution; see docs/method.md.

A linear path leads from pixels to latents and from the condition to pixels. It starts as the Karhunen-Loève transform
of 16x16 patches of training pictures (see `models/patch_transform.py`), so a fresh model is a transform codec already.
Residual blocks refine it. Norms only scale the input of a block, so mean and contrast pass unchanged.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.images import unit_to_signed
from cod_jax.models.bottlenecks import BottleneckConfig, FactorizedConfig
from cod_jax.models.codec_config import CodecConfig
from cod_jax.models.compact_blocks import compact_blocks, small
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import (
    MAX_BLOCKS,
    MAX_WIDTH,
    PATCH_SIZE,
    Denoised,
    DenoiserConfig,
    Prediction,
    require_mlp_ratio,
)
from cod_jax.models.fields import require, require_range
from cod_jax.models.functional import Params
from cod_jax.models.patch_transform import PATCH_VALUES, PatchMoments, PatchTransform, transform
from cod_jax.models.texture import Texture
from cod_jax.nn.embeddings import TimestepEmbedding, patchify, unpatchify
from cod_jax.nn.layers import Linear, xavier_uniform, zeros
from cod_jax.nn.norms import RMSNorm

TIMESTEP_BASE = 10000.0
# Pixels per position of the refinement.
REFINED_PATCH = 4
REFINED_VALUES = 3 * REFINED_PATCH**2


@dataclasses.dataclass(frozen=True)
class CompactCodecConfig(CodecConfig):
    """Description of a condition codec whose work is at 1/16 of the resolution.

    Attributes:
        kind: Name of this kind of condition codec.
        pitch: Pixels per grid position of the latents, 8 or 16.
        hidden: Channels of the encoder's state.
        num_encoder_blocks: Residual blocks of the encoder.
        num_decoder_blocks: Residual blocks of the condition decoder.
        mlp_ratio: Width of a block's MLP over its channels.
        latent_channels: Channels of the latents.
        step: Width of a bin of a fresh model's best quality level, in units of the orthonormal transform of pixel
            values in [-1, 1]; latents are counted in it.
        bottleneck: Description of the bottleneck, which turns latents into symbols.
    """

    kind: Literal["compact"] = "compact"
    pitch: int = 16
    hidden: int = 160
    num_encoder_blocks: int = 2
    num_decoder_blocks: int = 2
    mlp_ratio: float = 3.0
    latent_channels: int = 64
    step: float = 0.4
    bottleneck: BottleneckConfig = dataclasses.field(default_factory=FactorizedConfig)

    def __post_init__(self):
        require(self.pitch in (8, 16), f"pitch must be 8 or 16, got {self.pitch}")
        require_range(self, {"latent_channels": MAX_WIDTH})
        require_range(self, {"num_encoder_blocks": MAX_BLOCKS, "num_decoder_blocks": MAX_BLOCKS})
        require_mlp_ratio(self.mlp_ratio, self.hidden)
        require(0 < self.step < math.inf, f"step must be a positive number, got {self.step}")
        _require_components(self.hidden)
        require(
            self.cell_channels <= self.hidden,
            f"hidden must be at least {self.cell_channels}, the latents of 16x16 pixels, got {self.hidden}; make it "
            "larger or latent_channels smaller",
        )

    @property
    def cell_channels(self) -> int:
        """Latents of a cell of 16x16 pixels."""
        return self.latent_channels * (PATCH_SIZE // self.pitch) ** 2

    @property
    def attention(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Reach of attention, which this codec does not have: every position sees only its surroundings."""

    def build_encoder(self, *, denoiser: DenoiserConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> "CompactEncoder":
        """Return the encoder; see `CodecConfig.build_encoder`."""
        return CompactEncoder(self, compute=compute, rngs=rngs)

    def build_decoder(
        self, *, denoiser: DenoiserConfig, compute: ComputeConfig, rngs: nnx.Rngs
    ) -> "CompactConditionDecoder":
        """Return the condition decoder; see `CodecConfig.build_decoder`."""
        return CompactConditionDecoder(self, denoiser.hidden, compute=compute, rngs=rngs)

    def check_denoiser(self, denoiser: DenoiserConfig) -> None:
        """Check that the denoiser reads the condition linearly.

        Raises:
            UserError: It is of another kind, or has fewer channels than a cell has latents.
        """
        require(
            isinstance(denoiser, CompactDenoiserConfig) and denoiser.hidden >= self.cell_channels,
            f"a codec of kind compact needs a denoiser of kind compact with hidden at least {self.cell_channels}, got "
            f"kind {denoiser.kind} with {denoiser.hidden}",
        )

    def reach(self, denoiser: DenoiserConfig) -> tuple[int, int] | None:
        """Return the cells that encoder and decoder see around each; see `CodecConfig.reach`."""
        if not isinstance(denoiser, CompactDenoiserConfig):
            return None
        refined = -(-denoiser.num_refine_blocks * REFINED_PATCH // PATCH_SIZE)
        return self.num_encoder_blocks, self.num_decoder_blocks + denoiser.num_blocks + refined

    @property
    def fits_pictures(self) -> bool:
        """Always true: the linear path starts as a transform of training pictures."""
        return True

    def fit(self, params: Params, moments: PatchMoments, denoiser: DenoiserConfig) -> Params:
        """Return the parameters with the linear path of training pictures; see `CodecConfig.fit`."""
        codec, cell = params["codec"], self.cell_channels
        into = transform(moments, self.hidden, self.latent_channels, self.pitch)
        back = transform(moments, denoiser.hidden, self.latent_channels, self.pitch)
        scales = into.scales[:cell] / self.step
        return {
            "codec": {
                "encoder": {**codec["encoder"], "project": _fitted_into(into), "log_scale": np.log(scales)},
                "decoder": {**codec["decoder"], "log_scale": -np.log(scales)},
                "bottleneck": self.bottleneck.fit(codec["bottleneck"], scales[: self.latent_channels]),
            },
            "denoiser": {**params["denoiser"], "project": _fitted_from(back)},
        }


@dataclasses.dataclass(frozen=True)
class CompactDenoiserConfig(DenoiserConfig):
    """Description of a convolutional denoiser whose work is at 1/16 and 1/4 of the resolution.

    Attributes:
        kind: Name of this kind of denoiser.
        hidden: Channels on the patch grid, also of the condition.
        num_blocks: Residual blocks on the patch grid.
        mlp_ratio: Width of a block's MLP over its channels.
        refined: Channels of the refinement at 1/4 of the resolution.
        num_refine_blocks: Residual blocks of the refinement.
        prediction: What the network outputs, "image" or "velocity".
        num_texture_blocks: Residual blocks of the network that adds texture where there are several steps; 0 leaves it
            out. With it all other parts see no noise, and one step gives what it gives without.
        texture_features: Channels of that network, at 1/4 of the resolution.
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ("denoiser/texture/*",)
    kind: Literal["compact"] = "compact"
    hidden: int = 160
    num_blocks: int = 2
    mlp_ratio: float = 3.0
    refined: int = 48
    num_refine_blocks: int = 2
    prediction: Prediction = "image"
    num_texture_blocks: int = 0
    texture_features: int = 64

    def __post_init__(self):
        _require_components(self.hidden)
        require_range(self, {"refined": MAX_WIDTH, "texture_features": MAX_WIDTH})
        require(
            0 <= self.num_texture_blocks <= MAX_BLOCKS,
            f"num_texture_blocks must be between 0 and {MAX_BLOCKS}, got {self.num_texture_blocks}",
        )
        require_range(self, {"num_blocks": MAX_BLOCKS, "num_refine_blocks": MAX_BLOCKS})
        require_mlp_ratio(self.mlp_ratio, self.hidden)
        require_mlp_ratio(self.mlp_ratio, self.refined)
        require(
            self.prediction == "image" or not self.num_texture_blocks,
            f'num_texture_blocks needs prediction "image", got "{self.prediction}"; set it to 0',
        )

    def build(self, *, compute: ComputeConfig, rngs: nnx.Rngs) -> "CompactDenoiser":
        """Return the network; see `DenoiserConfig.build`."""
        return CompactDenoiser(self, compute=compute, rngs=rngs)

    def stored(self) -> dict[str, Any]:
        """Return plain values as a model folder stores them; see `DenoiserConfig.stored`."""
        values = super().stored()
        if not self.num_texture_blocks:
            del values["num_texture_blocks"], values["texture_features"]
        return values


def _require_components(hidden: int) -> None:
    """Refuse more channels than a patch has components."""
    require(
        1 <= hidden <= PATCH_VALUES,
        f"hidden must be between 1 and {PATCH_VALUES}, the values of a patch of 16x16 pixels, got {hidden}",
    )


class PatchProjection(nnx.Module):
    """Affine map from the values of a patch to channels, or back.

    The kernel is stored times the root of the number of values, so that its entries are about 1 and an optimizer that
    changes every number by the learning rate changes it slowly.

    Args:
        channels: Number of channels.
        to: Whether patches become channels or channels patches.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, channels: int, *, to: Literal["channels", "patches"], dtype: str, rngs: nnx.Rngs):
        self.dtype, self.into_channels = dtype, to == "channels"
        sizes, axes = (PATCH_VALUES, channels), ("features", "embed")
        if not self.into_channels:
            sizes, axes = sizes[::-1], axes[::-1]
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), sizes, jnp.float32), axes=axes)
        self.log_scale = nnx.Param(jnp.zeros((channels,), jnp.float32), axes=("latent",))
        self.bias = nnx.Param(jnp.zeros(sizes[1:], jnp.float32), axes=axes[1:])

    def __call__(self, x: Float[Array, "B h w N"]) -> Float[Array, "B h w M"]:
        """Map [B, h, w, 768] to [B, h, w, channels], or back."""
        return self._map(x, self.kernel[...], self.bias[...])

    def into_small_patches(self, x: Float[Array, "B h w C"], side: int) -> Float[Array, "B h2 w2 N"]:
        """Map channels to the values of patches of `side` pixels, one for each position of a finer grid.

        The kernel is put into their order instead of the picture, which is much larger.
        """
        per_side = PATCH_SIZE // side

        def ordered(values: jax.Array) -> jax.Array:
            small = values.reshape(*values.shape[:-1], per_side, side, per_side, side, 3)
            return small.swapaxes(-4, -3).reshape(values.shape)

        y = self._map(x, ordered(self.kernel[...]), ordered(self.bias[...]))
        return unpatchify(y.reshape(*y.shape[:3], per_side**2, -1), per_side)

    def _map(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        scale = jnp.exp(self.log_scale[...]) * PATCH_VALUES**-0.5
        kernel = kernel * (scale[None] if self.into_channels else scale[:, None])
        y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + bias.astype(self.dtype)[None, None, None]


def _fitted_into(fitted: PatchTransform) -> dict[str, Any]:
    """Return parameters of the map from patches to components of variance 1."""
    return {
        "kernel": fitted.basis * PATCH_VALUES**0.5,
        "log_scale": -np.log(fitted.scales),
        "bias": -(fitted.mean @ fitted.basis) / fitted.scales,
    }


def _fitted_from(fitted: PatchTransform) -> dict[str, Any]:
    """Return parameters of the map back."""
    return {"kernel": fitted.basis.T * PATCH_VALUES**0.5, "log_scale": np.log(fitted.scales), "bias": fitted.mean}


class CompactEncoder(nnx.Module):
    """Network from the image to latents [B, H / pitch, W / pitch, latent_channels].

    Args:
        config: The codec's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: CompactCodecConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        hidden, cell = config.hidden, config.cell_channels
        self.per_side = PATCH_SIZE // config.pitch
        self.project = PatchProjection(hidden, to="channels", dtype=compute.dtype, rngs=rngs)
        self.blocks = compact_blocks(hidden, config.mlp_ratio, config.num_encoder_blocks, compute=compute, rngs=rngs)
        self.norm = RMSNorm(hidden)
        self.out = Linear(hidden, cell, axes=("embed", "latent"), kernel_init=small, dtype=compute.dtype, rngs=rngs)
        self.log_scale = nnx.Param(jnp.zeros((cell,), jnp.float32), axes=("latent",))

    def __call__(self, image01: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Encode image01 in [0, 1], or the null condition, which is -1 everywhere."""
        patches = patchify(unit_to_signed(image01), PATCH_SIZE)
        state = self.blocks(self.project(patches.reshape(*patches.shape[:3], -1)))
        # Latents that are to be rounded have more digits than a bfloat16.
        linear = (
            state[..., : self.log_scale.shape[0]].astype(jnp.float32) * jnp.exp(self.log_scale[...])[None, None, None]
        )
        latents = linear + self.out(self.norm(state)).astype(jnp.float32)
        batch, rows, columns, _ = latents.shape
        return unpatchify(latents.reshape(batch, rows, columns, self.per_side**2, -1), self.per_side)


class CompactConditionDecoder(nnx.Module):
    """Network from the bottleneck's values to the condition on the 16-pixel grid, [B, H / 16, W / 16, hidden].

    Args:
        config: The codec's description.
        hidden: Channels of the condition.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: CompactCodecConfig, hidden: int, *, compute: ComputeConfig, rngs: nnx.Rngs):
        cell = config.cell_channels
        self.per_side, self.dtype, self.hidden = PATCH_SIZE // config.pitch, compute.dtype, hidden
        self.log_scale = nnx.Param(jnp.zeros((cell,), jnp.float32), axes=("latent",))
        self.lift = Linear(cell, hidden, axes=("latent", "embed"), kernel_init=small, dtype=compute.dtype, rngs=rngs)
        self.blocks = compact_blocks(hidden, config.mlp_ratio, config.num_decoder_blocks, compute=compute, rngs=rngs)

    def __call__(self, codes: Float[Array, "B h w C"]) -> Float[Array, "B H16 W16 hidden"]:
        """Decode the bottleneck's values [B, h, w, latent_channels]."""
        cells = patchify(codes, self.per_side)
        scaled = cells.reshape(*cells.shape[:3], -1) * jnp.exp(self.log_scale[...])[None, None, None]
        scaled = scaled.astype(self.dtype)
        rest = self.hidden - scaled.shape[-1]
        return self.blocks(jnp.pad(scaled, ((0, 0), (0, 0), (0, 0), (0, rest))) + self.lift(scaled))


class CompactDenoiser(nnx.Module):
    """Residual blocks on the patch grid, a linear map to pixels, and a refinement at 1/4 of the resolution.

    Args:
        config: The denoiser's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: CompactDenoiserConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        hidden, refined, dtype = config.hidden, config.refined, compute.dtype
        make: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.timestep = TimestepEmbedding(hidden, base=TIMESTEP_BASE, uniform_bias=False, **make)
        # Without noise there is nothing to embed; the map starts at zero so that a fresh model decodes in one step.
        self.patch_embed = Linear(
            PATCH_VALUES, hidden, axes=("features", "embed"), use_bias=False, kernel_init=zeros, **make
        )
        self.blocks = compact_blocks(
            hidden, config.mlp_ratio, config.num_blocks, modulated=True, compute=compute, rngs=rngs
        )
        self.project = PatchProjection(hidden, to="patches", **make)
        self.refine_in = Linear(
            2 * REFINED_VALUES, refined, axes=("features", "embed"), kernel_init=xavier_uniform, **make
        )
        self.refine = compact_blocks(refined, config.mlp_ratio, config.num_refine_blocks, compute=compute, rngs=rngs)
        self.norm = RMSNorm(refined)
        self.refine_out = Linear(refined, REFINED_VALUES, axes=("embed", "features"), kernel_init=zeros, **make)
        texture = None
        if config.num_texture_blocks:
            sizes = config.texture_features, config.num_texture_blocks, config.mlp_ratio
            texture = Texture(hidden, *sizes, compute=compute, rngs=rngs)
        self.texture = nnx.data(texture)

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Return the raw prediction at x_t, an image in [-1, 1] or a velocity; see `Denoiser`.

        Nothing works pixel by pixel, so `by_rows` changes nothing. With a texture network all other parts compute the
        picture of one step, whatever x_t and t are.
        """
        if self.texture is not None:
            drive = self.timestep(jnp.zeros_like(t))
            state, features = self.blocks.run(condition, drive, features_after=features_after)
            picture = self.pixels(state, jnp.zeros_like(x_t))
            # One step stays as fast as without: where t is a constant 0, the compiler leaves the other branch out.
            inputs = x_t.astype(jnp.float32), t, picture, state
            texture = jax.lax.cond(jnp.any(t > 0), self.texture, lambda x_t, *_: jnp.zeros_like(x_t), *inputs)
            return Denoised(picture + texture, features)
        state = condition + self.patch_embed(_flat_patches(x_t, PATCH_SIZE)).astype(condition.dtype)
        state, features = self.blocks.run(state, self.timestep(t), features_after=features_after)
        return Denoised(self.pixels(state, x_t), features)

    def pixels(
        self, state: Float[Array, "B h w hidden"], x_t: Float[Array, "B H W 3"] | None = None
    ) -> Float[Array, "B H W 3"]:
        """Return the raw prediction for the state after the blocks; x_t is left out if `refine_in` takes none."""
        around = linear = self.project.into_small_patches(state, REFINED_PATCH)
        if x_t is not None:
            around = jnp.concatenate([around, _flat_patches(x_t, REFINED_PATCH).astype(linear.dtype)], axis=-1)
        refined = linear + self.refine_out(self.norm(self.refine(self.refine_in(around))))
        pixels = refined.reshape(*refined.shape[:3], REFINED_PATCH**2, 3)
        return unpatchify(pixels, REFINED_PATCH).astype(jnp.float32)


def _flat_patches(x: jax.Array, patch_size: int) -> jax.Array:
    patches = patchify(x, patch_size)
    return patches.reshape(*patches.shape[:3], -1)
