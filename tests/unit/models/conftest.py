"""A tiny model, once for all tests of models."""

import jax
import jax.numpy as jnp
import pytest

from cod_jax.models import (
    build_model,
)
from tests.model_fixtures import numpy_params, tiny_model_config


@pytest.fixture(scope="module")
def tiny():
    """Return a tiny model and its parameters."""
    functional = build_model(tiny_model_config())
    return functional, jax.tree.map(jnp.asarray, numpy_params(functional.shapes))
