"""LPIPS with synthetic weights against the published implementation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.lpips import LPIPS
from cod_jax.features.trunk import ALEXNET, VGG16
from cod_jax.models.functional import Functional
from tests.parity.cases import FrozenCase, frozen_cases, relative_error, signed
from tests.parity.tolerances import LPIPS_GRADIENT, LPIPS_GRADIENT_NORM, LPIPS_VALUE

STAGES = {"vgg": VGG16, "alex": ALEXNET}
NETWORKS = {
    name: Functional(lambda rngs, stages=stages: LPIPS(stages, dtype="float32", rngs=rngs))
    for name, stages in STAGES.items()
}
# Windows end before the picture does at the odd sizes of p4, which is in every run.
CASES = frozen_cases("p4", slow=("p0", "p1", "p2", "p3"), larger=("p0", "p1", "p2", "p3", "p4"))


@partial(jax.jit, static_argnums=0)
def measure(trunk: str, params: Any, a: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
    """Return terms of the stages, the gradient of their sum in `a`, and the moments of the features of `a`."""
    network = NETWORKS[trunk].bind(params)

    def distance(a):
        terms = network.stage_distances(a, b)
        return jnp.sum(terms), terms

    (_, terms), gradient = jax.value_and_grad(distance, has_aux=True)(a)
    features = network.features(a)
    mean, std = (jnp.stack([moment(x) for x in features]) for moment in (jnp.mean, jnp.std))
    return terms[:, 0], gradient[0], mean, std


@pytest.mark.parametrize("trunk", STAGES)
@pytest.mark.parametrize(("pair", "is_larger"), CASES)
def test_distance_its_stages_and_its_gradient(lpips_params, trunk, pair, is_larger):
    case, index = FrozenCase("lpips", is_larger=is_larger), int(pair[1:])
    a, b = (jnp.asarray(signed(image)) for image in case.pair_uint8(pair))
    terms, gradient, mean, std = measure(trunk, lpips_params[trunk], a, b)
    assert relative_error(terms, case.arrays[f"{trunk}_layers"][index]) <= LPIPS_VALUE
    assert relative_error(jnp.sum(terms), case.arrays[f"{trunk}_value"][index]) <= LPIPS_VALUE
    assert relative_error(mean, case.arrays[f"{trunk}_feat_mean"][index]) <= LPIPS_VALUE
    assert relative_error(std, case.arrays[f"{trunk}_feat_std"][index]) <= LPIPS_VALUE
    assert case.error(f"{trunk}_{pair}_grad", gradient) <= LPIPS_GRADIENT
    assert relative_error(np.linalg.norm(gradient), case.arrays[f"{trunk}_grad_l2"][index]) <= LPIPS_GRADIENT_NORM
