"""LPIPS with synthetic weights against the published implementation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.lpips import ALEXNET, LPIPS, VGG16
from cod_jax.interop.frozen_networks.lpips import lpips_params_from_state_dict
from cod_jax.models.functional import Functional
from tests.parity.frozen_cases import (
    LPIPS_GRADIENT,
    LPIPS_GRADIENT_NORM,
    LPIPS_VALUE,
    FrozenCase,
    larger,
    signed,
    state_dict,
)

STAGES = {"vgg": VGG16, "alex": ALEXNET}
TRUNKS = {"vgg": "vgg16", "alex": "alexnet"}
NETWORKS = {
    name: Functional(lambda rngs, stages=stages: LPIPS(stages, dtype="float32", rngs=rngs))
    for name, stages in STAGES.items()
}
# Odd sizes, at which windows end before the picture does, in every run.
CASES = [
    ("alex", "p4", False),
    ("vgg", "p4", False),
    *(
        pytest.param(trunk, f"p{pair}", is_larger, marks=[pytest.mark.slow, *([larger] if is_larger else [])])
        for trunk in STAGES
        for is_larger in (False, True)
        for pair in range(5 if is_larger else 4)
    ),
]


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return {
        name: jax.tree.map(
            jnp.asarray,
            lpips_params_from_state_dict(state_dict(TRUNKS[name]) | state_dict(f"lpips_{name}"), stages),
        )
        for name, stages in STAGES.items()
    }


@partial(jax.jit, static_argnums=0)
def measure(trunk: str, params: Any, a: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
    """Terms of the stages, the gradient of their sum in `a`, and the moments of the features of `a`."""
    network = NETWORKS[trunk].bind(params)

    def distance(a):
        terms = network.stage_distances(a, b)
        return jnp.sum(terms), terms

    (_, terms), gradient = jax.value_and_grad(distance, has_aux=True)(a)
    features = network.features(a)
    mean, std = (jnp.stack([moment(x) for x in features]) for moment in (jnp.mean, jnp.std))
    return terms[:, 0], gradient[0], mean, std


def relative(actual: Any, expected: Any) -> float:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("trunk", "pair", "is_larger"), CASES)
def test_distance_its_stages_and_its_gradient(params, trunk, pair, is_larger):
    case, index = FrozenCase("lpips", is_larger=is_larger), int(pair[1:])
    a, b = (jnp.asarray(signed(image)) for image in case.pair_uint8(pair))
    terms, gradient, mean, std = measure(trunk, params[trunk], a, b)
    assert relative(terms, case.arrays[f"{trunk}_layers"][index]) <= LPIPS_VALUE
    assert relative(jnp.sum(terms), case.arrays[f"{trunk}_value"][index]) <= LPIPS_VALUE
    assert relative(mean, case.arrays[f"{trunk}_feat_mean"][index]) <= LPIPS_VALUE
    assert relative(std, case.arrays[f"{trunk}_feat_std"][index]) <= LPIPS_VALUE
    assert case.error(f"{trunk}_{pair}_grad", gradient) <= LPIPS_GRADIENT
    assert relative(np.linalg.norm(gradient), case.arrays[f"{trunk}_grad_l2"][index]) <= LPIPS_GRADIENT_NORM
