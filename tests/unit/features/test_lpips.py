"""LPIPS' distances and gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.lpips import LPIPS, SHIFT, _unit
from cod_jax.features.trunk import ALEXNET, VGG16
from cod_jax.models.functional import Functional
from tests.model_fixtures import numpy_params
from tests.unit.features.networks import TINY_STAGES, lpips, pictures


def lpips_params() -> Any:
    params = jax.tree.map(jnp.asarray, numpy_params(lpips().shapes))
    return params | {"weights": jax.tree.map(jnp.abs, params["weights"])}


@partial(jax.jit, static_argnums=0)
def distance_and_gradient(functional: Any, params: Any, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    distance, pull_back = jax.vjp(lambda a: functional.bind(params).distance(a, b), a)
    return distance, pull_back(jnp.ones_like(distance))[0]


def test_lpips_is_zero_for_equal_pictures_and_grows_with_the_difference():
    a, other = pictures(2, 3, 19, 22, 3, low=-1)
    b = jnp.stack([a[0], a[1] + 0.1 * other[1], a[2] + other[2]])
    distance, gradient = distance_and_gradient(lpips(), lpips_params(), a, b)
    assert distance[0] == 0
    assert not np.any(gradient[0])
    assert 0 < 10 * distance[1] < distance[2]
    assert np.any(gradient[1])


def test_lpips_has_a_finite_gradient_where_feature_vectors_vanish():
    params = lpips_params()
    convs = {number: {**conv, "bias": jnp.zeros_like(conv["bias"])} for number, conv in params["convs"].items()}
    dark = jnp.broadcast_to(jnp.asarray(SHIFT), (1, 19, 22, 3))  # 0 as the trunk sees it
    image = pictures(1, 19, 22, 3, low=-1)
    for a, b in ((dark, image), (image, dark), (dark, dark)):
        distance, gradient = distance_and_gradient(lpips(), {**params, "convs": convs}, a, b)
        assert (distance[0] > 0) == (a is not b)
        assert np.all(np.isfinite(gradient))
    vectors = jnp.stack([jnp.zeros(3), jnp.full((3,), 1e-30), jnp.array([3.0, 0.0, -4.0])])[None, None]
    units, pull_back = jax.vjp(_unit, vectors)
    np.testing.assert_allclose(units[0, 0], [[0, 0, 0], [0, 0, 0], [0.6, 0, -0.8]], atol=1e-7)
    (gradient,) = pull_back(jnp.ones_like(units))
    assert not np.any(gradient[0, 0, :2])
    assert np.any(gradient[0, 0, 2])


def test_lpips_computes_its_trunk_in_bfloat16_when_asked():
    a, b = pictures(2, 1, 19, 22, 3, low=-1)
    distance, _ = distance_and_gradient(lpips("bfloat16"), lpips_params(), a, b)
    expected, _ = distance_and_gradient(lpips(), lpips_params(), a, b)
    assert distance.dtype == jnp.float32
    np.testing.assert_allclose(distance, expected, rtol=0.05)
    assert not np.array_equal(distance, expected)


@pytest.mark.parametrize(("stages", "smallest"), [(VGG16, 16), (ALEXNET, 31), (TINY_STAGES, 5)])
def test_lpips_refuses_pictures_that_leave_nothing_to_compare(stages, smallest):
    functional = Functional(lambda rngs: LPIPS(stages, dtype="float32", rngs=rngs))
    network = functional.bind(functional.shapes)
    assert network.smallest_side == smallest
    image = jax.ShapeDtypeStruct((1, smallest, smallest + 1, 3), jnp.float32)
    features = jax.eval_shape(lambda p, x: functional.bind(p).features(x), functional.shapes, image)
    assert features[-1].shape[1] == 1
    with pytest.raises(ValueError, match=f"at least {smallest} pixels for this trunk, got {smallest - 1}x{smallest}"):
        jax.eval_shape(network.features, jnp.zeros((1, smallest - 1, smallest, 3)))
