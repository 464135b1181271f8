"""Spectral normalisation (Miyato et al. 2018) as functions on nested dicts of parameters.

Every layer's kernel [..., out] is taken as a matrix that maps all other axes to `out`, and divided by its largest
singular value. The two singular vectors are not parameters: they follow the kernel by power iteration. They are kept in
a dict of their own, with {"u": [out], "v": [in]} in the place of each layer's parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Nested = dict[Any, Any]

# Floor of the length that a vector is divided by.
EPSILON = 1e-12
HIGHEST = jax.lax.Precision.HIGHEST


def init_singular_vectors(params: Nested, key: jax.Array) -> Nested:
    """Return singular vectors to start from: one power iteration on random vectors.

    Args:
        params: Nested dict of layers, each with a "kernel" and maybe a "bias".
        key: Randomness.
    """
    if "kernel" in params:
        matrix = _matrix(params["kernel"])
        return _iterate(matrix, jax.random.normal(key, matrix.shape[1:], jnp.float32))
    keys = jax.random.split(key, len(params))
    return {name: init_singular_vectors(params[name], key) for name, key in zip(params, keys, strict=True)}


def spectral_normalize(params: Nested, vectors: Nested, *, train: bool) -> tuple[Nested, Nested]:
    """Divide every kernel by u^T W v; the vectors are constants for the gradient.

    Args:
        params: Nested dict of layers, each with a "kernel" and maybe a "bias", which stays as it is.
        vectors: The layers' singular vectors.
        train: Whether to take one power iteration first: v = W^T u and u = W v, both scaled to length 1.

    Returns:
        Parameters like `params` and vectors like `vectors`.
    """
    if "kernel" in params:
        kernel = params["kernel"].astype(jnp.float32)
        matrix = _matrix(kernel)
        if train:
            vectors = _iterate(matrix, vectors["u"])
        vectors = jax.lax.stop_gradient(vectors)
        largest = jnp.dot(jnp.dot(vectors["v"], matrix, precision=HIGHEST), vectors["u"], precision=HIGHEST)
        return {**params, "kernel": kernel / largest}, vectors
    layers = {name: spectral_normalize(params[name], vectors[name], train=train) for name in params}
    return {name: layer[0] for name, layer in layers.items()}, {name: layer[1] for name, layer in layers.items()}


def _matrix(kernel: jax.Array) -> Float[Array, "in out"]:
    return kernel.reshape(-1, kernel.shape[-1])


def _iterate(matrix: Float[Array, "in out"], u: Float[Array, " out"]) -> Nested:
    v = _unit(jnp.dot(matrix, u, precision=HIGHEST))
    return {"u": _unit(jnp.dot(v, matrix, precision=HIGHEST)), "v": v}


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x / jnp.maximum(jnp.linalg.norm(x), EPSILON)
