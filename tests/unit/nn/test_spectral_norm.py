"""Spectral normalisation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.nn.spectral_norm import init_singular_vectors, spectral_normalize


def layer(*shape: int) -> dict[str, Any]:
    return {"kernel": jax.random.normal(jax.random.key(1), shape), "bias": jnp.ones(shape[-1])}


def test_vectors_converge_to_the_largest_singular_value():
    params = {"a": layer(3, 3, 4, 6), "b": {0: layer(5, 2)}}
    step = jax.jit(partial(spectral_normalize, train=True))
    state = init_singular_vectors(params, jax.random.key(0))
    for _ in range(100):
        _, state = step(params, state)
    normalized, _ = step(params, state)
    for ours, kernel in ((normalized["a"], params["a"]["kernel"]), (normalized["b"][0], params["b"][0]["kernel"])):
        largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        np.testing.assert_allclose(ours["kernel"], kernel / largest, rtol=1e-4)
    np.testing.assert_array_equal(normalized["a"]["bias"], params["a"]["bias"])
    jax.tree.map(lambda x: np.testing.assert_allclose(jnp.linalg.norm(x), 1, rtol=1e-5), state)


def test_gradient_flows_through_the_singular_value_but_not_through_its_vectors():
    params = layer(5, 4)
    state = init_singular_vectors(params, jax.random.key(0))
    cotangent = jax.random.normal(jax.random.key(2), (5, 4))

    def projected(kernel):
        normalized, after = spectral_normalize({"kernel": kernel}, state, train=True)
        return jnp.sum(normalized["kernel"] * cotangent), after

    gradient, after = jax.grad(projected, has_aux=True)(params["kernel"])
    outer = jnp.outer(after["v"], after["u"])  # the gradient of v^T W u in W
    sigma = jnp.sum(outer * params["kernel"])
    expected = cotangent / sigma - jnp.sum(cotangent * params["kernel"]) / sigma**2 * outer
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
