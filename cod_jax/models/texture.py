"""Texture that the flow adds to the picture of one step; see docs/method.md, Compact models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.diffusion.flow import expand
from cod_jax.models.compact_blocks import compact_blocks
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.nn.embeddings import TimestepEmbedding, patchify, unpatchify
from cod_jax.nn.layers import Linear, zeros
from cod_jax.nn.norms import RMSNorm

TIMESTEP_BASE = 10000.0
# Pixels per position of the network.
TEXTURE_PATCH = 4
TEXTURE_VALUES = TEXTURE_PATCH**2
# Standard deviations of what the grey of a picture of one step lacks, for pixel values in [-1, 1]: of coefficients of
# 4x4 cosine transforms, by the sum of their two frequencies. Means over all levels of the included model.
TEXTURE_SPREADS = (0.295, 0.25, 0.203, 0.15, 0.13, 0.105, 0.068)
_GREY = 3**-0.5


def texture_axes() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return orthonormal axes for the grey of a patch [16, 16], row by row, and the spread along each [16]."""
    places = np.arange(TEXTURE_PATCH)
    cosines = np.cos(np.pi * np.outer(places, 2 * places + 1) / (2 * TEXTURE_PATCH)) * np.sqrt(2 / TEXTURE_PATCH)
    cosines[0] /= np.sqrt(2)
    spreads = np.array(TEXTURE_SPREADS, np.float32)[np.add.outer(places, places).reshape(-1)]
    return np.kron(cosines, cosines).astype(np.float32), spreads


class Texture(nnx.Module):
    """Estimate of what the grey of the picture of one step lacks, given a noisy picture.

    Missing texture of colour is hardly seen, and a small network that invents some makes coloured specks.

    Args:
        hidden: Channels of the state on the patch grid.
        features: Channels at 1/4 of the resolution.
        num_blocks: Residual blocks.
        mlp_ratio: Width of a block's MLP over its channels.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        hidden: int,
        features: int,
        num_blocks: int,
        mlp_ratio: float,
        *,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
    ):
        make: dict[str, Any] = {"dtype": compute.dtype, "rngs": rngs}
        self.timestep = TimestepEmbedding(features, base=TIMESTEP_BASE, uniform_bias=False, **make)
        self.patch_embed = Linear(4 * TEXTURE_VALUES, features, axes=("features", "embed"), **make)
        self.state_embed = Linear(hidden, features, axes=("features", "embed"), **make)
        self.blocks = compact_blocks(features, mlp_ratio, num_blocks, modulated=True, compute=compute, rngs=rngs)
        self.norm = RMSNorm(features)
        self.out = Linear(features, TEXTURE_VALUES, axes=("embed", "features"), kernel_init=zeros, **make)

    def __call__(
        self,
        x_t: Float[Array, "B H W 3"],
        t: Float[Array, " B"],
        picture: Float[Array, "B H W 3"],
        state: Float[Array, "B h w hidden"],
    ) -> Float[Array, "B H W 3"]:
        """Return the expected texture; 0 at t = 0.

        With y = x_t - t picture in grey and the spread s along each of `texture_axes`, it is
        t s^2 y / c^2 + s t (1 - t) F(y / c) / c with c^2 = t^2 s^2 + (1 - t)^2: the best linear estimate if patches
        were independent, and what the network F knows better. The factors keep the network's input and output of about
        unit variance at all t (Karras et al. 2022, "Elucidating the design space of diffusion-based generative models",
        table 1).

        Args:
            x_t: Noisy picture, t image + (1 - t) noise.
            t: Timesteps in [0, 1].
            picture: Picture of one step, in [-1, 1].
            state: The denoiser's state after its blocks.
        """
        axes, spreads = map(jnp.asarray, texture_axes())
        time, spreads = expand(t, x_t), spreads[None, None, None]
        grey = jnp.sum(x_t.astype(jnp.float32) - time * picture, axis=-1, keepdims=True) * _GREY
        rest = _turned(_patches(grey), axes.T)
        scale = jnp.sqrt(time**2 * spreads**2 + (1 - time) ** 2)
        better = self._network(rest / scale, t, _patches(picture), state)
        found = time * spreads**2 / scale**2 * rest + spreads * time * (1 - time) / scale * better
        return unpatchify(_turned(found, axes)[..., None], TEXTURE_PATCH) * jnp.full((1, 1, 1, 3), _GREY)

    def _network(self, rest: jax.Array, t: jax.Array, picture: jax.Array, state: jax.Array) -> jax.Array:
        x = self.patch_embed(jnp.concatenate([rest, picture], axis=-1))
        per_side = PATCH_SIZE // TEXTURE_PATCH
        around = self.state_embed(state)
        x = x + jnp.repeat(jnp.repeat(around, per_side, axis=1), per_side, axis=2)
        return self.out(self.norm(self.blocks(x, self.timestep(t)))).astype(jnp.float32)


def _patches(x: Float[Array, "B H W C"]) -> Float[Array, "B h w N"]:
    patches = patchify(x, TEXTURE_PATCH)
    return patches.reshape(*patches.shape[:3], -1)


def _turned(x: Float[Array, "B h w N"], axes: Float[Array, "N N"]) -> Float[Array, "B h w N"]:
    return jnp.matmul(x, axes, precision=jax.lax.Precision.HIGHEST)
