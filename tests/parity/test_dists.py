"""DISTS with synthetic weights against the published implementation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dists import DISTS, l2_pool
from cod_jax.interop.frozen_networks.dists import dists_params_from_state_dict
from cod_jax.models.functional import Functional
from tests.parity.cases import FrozenCase, frozen_cases, frozen_state_dict, relative_error
from tests.parity.tolerances import DISTS_VALUE, LPIPS_GRADIENT, LPIPS_GRADIENT_NORM, LPIPS_VALUE

NETWORK = Functional(lambda rngs: DISTS(dtype="float32", rngs=rngs))
PAIRS = ("p0", "p1", "p2", "p3", "p4")
# The sizes of p4 are odd, at several stages.
CASES = frozen_cases("p4", slow=PAIRS[:4], larger=PAIRS)


@pytest.fixture(scope="module")
def params() -> Any:
    weights = frozen_state_dict("vgg16") | frozen_state_dict("dists")
    return jax.tree.map(jnp.asarray, dists_params_from_state_dict(weights))


@jax.jit
def measure(params: Any, a: jax.Array, b: jax.Array) -> tuple[Any, ...]:
    """Return the parts of the stages, the gradient of their sum in `a`, and the moments of the features of `a`."""
    network = NETWORK.bind(params)

    def distance(a):
        texture, structure = network.stage_distances(network.features(a), network.features(b))
        return jnp.sum(texture + structure), (texture[:, 0], structure[:, 0])

    (_, parts), gradient = jax.value_and_grad(distance, has_aux=True)(a)
    features = network.features(a)
    mean, std = (jnp.stack([moment(x) for x in features]) for moment in (jnp.mean, jnp.std))
    return parts, gradient[0], mean, std


def shares(params: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of all weights that those of texture, and of structure, have at each stage."""
    borders = np.cumsum([3, 64, 128, 256, 512])
    alpha, beta = (np.asarray(params[name], np.float64) for name in ("alpha", "beta"))
    total = alpha.sum() + beta.sum()
    texture, structure = ([part.sum() / total for part in np.split(weights, borders)] for weights in (alpha, beta))
    return np.array(texture), np.array(structure)


@pytest.mark.parametrize(("pair", "is_larger"), CASES)
def test_distance_its_parts_and_its_gradient(params, pair, is_larger):
    case, index = FrozenCase("dists", is_larger=is_larger), int(pair[1:])
    pictures = FrozenCase("lpips", is_larger=is_larger).pair_uint8(pair)
    a, b = (jnp.asarray(picture.astype(np.float32) / 255) for picture in pictures)
    parts, gradient, mean, std = measure(params, a, b)
    value = np.sum(np.asarray(parts, np.float64))
    assert abs(value - case.arrays["value_f64"][index]) <= DISTS_VALUE
    # The fixture has similarities, and calls that of means the structure.
    for name, part, share in zip(("struct_f64", "texture_f64"), parts, shares(params), strict=True):
        np.testing.assert_allclose(share - np.asarray(part), case.arrays[name][index], rtol=0, atol=DISTS_VALUE)
    assert relative_error(mean, case.arrays["feat_mean"][index]) <= LPIPS_VALUE
    assert relative_error(std, case.arrays["feat_std"][index]) <= LPIPS_VALUE
    assert case.error(f"{pair}_grad", gradient) <= LPIPS_GRADIENT
    assert relative_error(np.linalg.norm(gradient), case.arrays["grad_l2"][index]) <= LPIPS_GRADIENT_NORM


@pytest.mark.parametrize("name", ["l2pool0", pytest.param("l2pool1", marks=pytest.mark.slow)])
def test_pooling_and_its_gradient(name):
    case = FrozenCase("dists")
    pooled, pull_back = jax.vjp(l2_pool, jnp.asarray(case.arrays[f"{name}_x"])[None])
    assert relative_error(pooled[0], case.arrays[f"{name}_y"]) <= LPIPS_VALUE
    assert relative_error(pull_back(jnp.ones_like(pooled))[0][0], case.arrays[f"{name}_dx"]) <= LPIPS_VALUE
