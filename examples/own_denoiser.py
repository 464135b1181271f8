"""A denoiser of your own, named in a config and used like those of the package.

    export PYTHONPATH=. COD_JAX_PLUGINS=examples
    cod train --config examples/own_denoiser.py --workdir runs/own_denoiser --config.data.source=PHOTOS
    cod export --workdir runs/own_denoiser --output models/own_denoiser
    cod compress -m models/own_denoiser photo.jpg

This file is both: the denoiser, and a config that names it. A model folder holds the name and never the code, so
whoever decompresses installs the package of the denoiser and lists it in COD_JAX_PLUGINS.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import PATCH_SIZE, Denoised, DenoiserConfig, Prediction
from cod_jax.models.fields import require_range
from cod_jax.nn.embeddings import TimestepEmbedding, patchify, unpatchify
from cod_jax.nn.layers import Conv, Linear, zeros
from cod_jax.nn.norms import layer_norm
from cod_jax.nn.stack import Stack


@dataclasses.dataclass(frozen=True)
class PlainDenoiserConfig(DenoiserConfig):
    """Residual 3x3 convolutions on the patch grid and a linear map to pixels.

    Attributes:
        kind: Name of this class, by which a config and a model folder find it.
        hidden: Channels on the patch grid, also of the condition.
        num_blocks: Residual blocks.
        prediction: What the network outputs, "image" or "velocity".
    """

    kind: str = "examples.own_denoiser:PlainDenoiserConfig"
    hidden: int = 64
    num_blocks: int = 3
    prediction: Prediction = "image"

    def __post_init__(self):
        # A description may come from an untrusted file: without limits it could build for hours.
        require_range(self, {"hidden": 4096, "num_blocks": 256})

    def build(self, *, compute: ComputeConfig, rngs: nnx.Rngs) -> "PlainDenoiser":
        """Return the network."""
        return PlainDenoiser(self, compute=compute, rngs=rngs)


class PlainBlock(nnx.Module):
    """A residual 3x3 convolution, shifted by the timestep."""

    def __init__(self, features: int, *, dtype: str, rngs: nnx.Rngs):
        self.shift = Linear(features, features, axes=("embed", "modulation"), dtype=dtype, rngs=rngs)
        self.conv_in = Conv(features, features, dtype=dtype, rngs=rngs)
        self.conv_out = Conv(features, features, dtype=dtype, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"], t_embedding: Float[Array, "B C"]) -> Float[Array, "B h w C"]:
        """Map [B, h, w, C] to the same shape."""
        y = self.conv_in(layer_norm(x) + self.shift(t_embedding)[:, None, None])
        return x + self.conv_out(jax.nn.silu(y))


class PlainDenoiser(nnx.Module):
    """Patches and condition in, patches of pixels out."""

    def __init__(self, config: PlainDenoiserConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        hidden, dtype, pixels = config.hidden, compute.dtype, 3 * PATCH_SIZE**2
        self.timestep = TimestepEmbedding(hidden, base=10000.0, uniform_bias=False, dtype=dtype, rngs=rngs)
        self.patch_embed = Linear(pixels + hidden, hidden, axes=("features", "embed"), dtype=dtype, rngs=rngs)
        self.blocks = Stack(
            lambda block_rngs: PlainBlock(hidden, dtype=dtype, rngs=block_rngs),
            config.num_blocks,
            remat=compute.remat,
            unroll=compute.unroll,
            rngs=rngs,
        )
        self.out = Linear(hidden, pixels, axes=("embed", "features"), dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Predict the image or the velocity at x_t; see `cod_jax.models.denoiser.Denoiser`."""
        patches = patchify(x_t, PATCH_SIZE)
        flat = patches.reshape(*patches.shape[:3], -1)
        state = self.patch_embed(jnp.concatenate([flat, condition.astype(flat.dtype)], axis=-1))
        state, features = self.blocks.run(state, self.timestep(t), features_after=features_after)
        pixels = self.out(state).astype(jnp.float32).reshape(patches.shape)
        return Denoised(unpatchify(pixels, PATCH_SIZE), features)


def get_config():
    """The tiny recipe with this denoiser, trained for decoding in one step."""
    from configs import base, tiny

    config = tiny.get_config()
    base.replace_denoiser(config, dataclasses.asdict(PlainDenoiserConfig()))
    base.apply(config, {"objective.one_step_weight": 1.0, "objective.one_step_noise_level": 0.0})
    return config
