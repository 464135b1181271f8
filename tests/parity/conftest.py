"""Weights and cases that several parity tests of a file share; each is made once per file."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.trunk import ALEXNET, VGG16
from cod_jax.interop.frozen_networks.dinov2 import dinov2_params_from_state_dict
from cod_jax.interop.frozen_networks.lpips import lpips_params_from_state_dict
from cod_jax.interop.frozen_networks.sd_vae import sd_vae_params_from_state_dict
from tests.parity.cases import Case, frozen_state_dict


@pytest.fixture(scope="module")
def lite() -> Case:
    return Case("embeddings_and_blocks_lite")


@pytest.fixture(scope="module")
def cod() -> Case:
    return Case("embeddings_and_blocks_cod")


@pytest.fixture(scope="module")
def dinov2_weights() -> dict[str, np.ndarray]:
    return frozen_state_dict("dinov2_vitb14")


@pytest.fixture(scope="module")
def dinov2_params(dinov2_weights) -> Any:
    return jax.tree.map(jnp.asarray, dinov2_params_from_state_dict(dinov2_weights))


@pytest.fixture(scope="module")
def sd_vae_params() -> Any:
    return jax.tree.map(jnp.asarray, sd_vae_params_from_state_dict(frozen_state_dict("sd_vae_ft_ema")))


@pytest.fixture(scope="module")
def lpips_params() -> dict[str, Any]:
    """Parameters by trunk."""
    params = {}
    for trunk, published, stages in (("vgg", "vgg16", VGG16), ("alex", "alexnet", ALEXNET)):
        weights = frozen_state_dict(published) | frozen_state_dict(f"lpips_{trunk}")
        params[trunk] = jax.tree.map(jnp.asarray, lpips_params_from_state_dict(weights, stages))
    return params
