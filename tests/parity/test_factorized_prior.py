"""The learned densities against a public peer's, computed in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.models.bottlenecks.densities import (
    DensityLayer,
    bits_per_value,
    cumulative_logits,
    log_likelihood,
    quantiles,
)
from tests.parity.cases import Case


@pytest.fixture(scope="module", params=["default", "narrow", "none"])
def case(request) -> dict[str, np.ndarray]:
    arrays = Case("factorized_prior").arrays
    prefix = f"{request.param}__"
    return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


def density_of(case: dict[str, np.ndarray], prefix: str = "") -> list[DensityLayer]:
    layers = []
    while (name := f"{prefix}matrix_{len(layers)}") in case:
        bias, factor = (case.get(f"{prefix}{part}_{len(layers)}") for part in ("bias", "factor"))
        assert bias is not None
        layers.append(
            DensityLayer(
                jnp.asarray(case[name], jnp.float32),
                jnp.asarray(bias[..., 0], jnp.float32),
                None if factor is None else jnp.asarray(factor[..., 0], jnp.float32),
            )
        )
    return layers


def values_of(case: dict[str, np.ndarray]) -> jax.Array:
    """The same values in every channel, channels last."""
    return jnp.tile(jnp.asarray(case["x"])[:, None], (1, len(case["quantiles"])))


def test_logits_likelihoods_and_bits(case):
    density, x = density_of(case), values_of(case)
    step = jnp.ones_like(x[:1])
    logits = cumulative_logits(density, x).T
    np.testing.assert_allclose(logits, case["logits_cumulative"], rtol=1e-5, atol=1e-5)
    likelihood = np.exp(log_likelihood(density, x, step)).T
    np.testing.assert_allclose(likelihood, case["likelihood"], atol=1e-5)
    usual = case["likelihood"] > 1e-6
    np.testing.assert_allclose(likelihood[usual], case["likelihood"][usual], rtol=1e-3)
    bits = np.asarray(bits_per_value(density, x, step)).T
    np.testing.assert_allclose(bits[usual], case["bits"][usual], atol=1e-3)
    np.testing.assert_allclose(bits, case["bits"], rtol=1e-3, atol=1e-3)


def test_gradients(case):
    weight = jnp.asarray(case["weight"] * case["grad_mask"]).T

    def loss(density, x):
        return jnp.sum(weight * bits_per_value(density, x, jnp.ones_like(x[:1])))

    gradients, gradient_x = jax.grad(loss, argnums=(0, 1))(density_of(case), values_of(case))
    assert_close(gradient_x.T, case["grad_x"])
    for layer, expected in zip(gradients, density_of(case, "grad_"), strict=True):
        jax.tree.map(assert_close, layer, expected)


def assert_close(gradient, expected) -> None:
    difference = np.linalg.norm(np.asarray(gradient, np.float64) - np.asarray(expected, np.float64))
    assert difference <= 1e-3 * np.linalg.norm(np.asarray(expected, np.float64))


def test_quantiles(case):
    found = quantiles(density_of(case), jnp.asarray(case["target"], jnp.float32))
    np.testing.assert_allclose(found, case["quantiles"], rtol=1e-5, atol=1e-3)
