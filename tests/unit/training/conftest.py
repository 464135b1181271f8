"""Images for steps and objectives."""

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.randint(jax.random.key(2), (4, 32, 32, 3), 0, 256).astype(jnp.uint8)
