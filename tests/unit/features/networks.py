"""Frozen networks small enough for tests, and pictures for them."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.features.dinov2 import DINOv2, DINOv2Config
from cod_jax.features.dists import DISTS
from cod_jax.features.lpips import LPIPS
from cod_jax.features.sd_vae import SDVAE, SDVAEConfig
from cod_jax.features.trunk import Stage
from cod_jax.models.functional import Functional

TINY_DINOV2 = DINOv2Config(patch_size=2, width=8, num_blocks=3, num_heads=2, mlp_width=16, table_side=3)
TINY_STAGES = (Stage((4,), kernel_size=5, stride=2, padding=2), Stage((6, 5), pool=3))
TINY_VAE = SDVAEConfig(widths=(4, 8), encoder_blocks=1, latent_channels=4, num_groups=2)


def dinov2(dtype: str = "float32") -> Functional[DINOv2]:
    return Functional(lambda rngs: DINOv2(TINY_DINOV2, dtype=dtype, rngs=rngs))


def vae(dtype: str = "float32") -> Functional[SDVAE]:
    return Functional(lambda rngs: SDVAE(TINY_VAE, dtype=dtype, rngs=rngs))


@cache
def lpips(dtype: str = "float32") -> Functional[LPIPS]:
    return Functional(lambda rngs: LPIPS(TINY_STAGES, dtype=dtype, rngs=rngs))


@cache
def dists() -> Functional[DISTS]:
    return Functional(lambda rngs: DISTS(TINY_STAGES, dtype="float32", rngs=rngs))


@partial(jax.jit, static_argnums=(0, 1, 4))
def run(functional: Any, method: str, params: Any, x: jax.Array, static: tuple = ()):
    return getattr(functional.bind(params), method)(x, *static)


def pictures(*shape: int, low: float = 0.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(low, 1, shape).astype(np.float32))
