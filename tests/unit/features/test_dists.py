"""DISTS' distances."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.features.dists import l2_pool
from tests.model_fixtures import numpy_params
from tests.unit.features.networks import dists, pictures


def dists_params() -> Any:
    params = jax.tree.map(jnp.asarray, numpy_params(dists().shapes))
    return params | {name: jnp.abs(params[name]) for name in ("alpha", "beta")}


def test_dists_is_zero_for_equal_pictures_and_grows_with_the_difference():
    a, other = pictures(2, 3, 19, 22, 3)
    b = jnp.stack([a[0], 0.9 * a[1] + 0.1 * other[1], other[2]])
    functional = dists()
    distance = jax.jit(lambda params, a, b: functional.bind(params).distance(a, b))(dists_params(), a, b)
    assert distance[0] == 0
    assert 0 < 10 * distance[1] < distance[2]


def test_the_pooling_keeps_the_last_row_of_odd_sizes():
    x = jnp.ones((1, 5, 8, 2))
    pooled = l2_pool(x)
    assert pooled.shape == (1, 3, 4, 2)
    np.testing.assert_allclose(pooled[0, 1, 1:], 1, rtol=1e-6)
    # A quarter of the weight lies outside, in each direction.
    np.testing.assert_allclose(pooled[0, [0, 2], 0, 0] ** 2, 0.75**2, rtol=1e-6)
