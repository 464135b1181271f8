"""SSIM at each scale and MS-SSIM, of which the perceptual distance is made, against the published implementation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.losses.similarity import SCALE_WEIGHTS, ms_ssim_per_image, scales, similarity
from tests.parity.frozen_cases import SIMILARITY, SIMILARITY_GRADIENT, SIMILARITY_TERMS, FrozenCase, larger, signed

NUM_SCALES = len(SCALE_WEIGHTS)
# m1 has odd sides at several scales.
CASES = [
    ("m1", False),
    *(pytest.param(name, False, marks=pytest.mark.slow) for name in ("m0", "m2")),
    *(pytest.param(name, True, marks=[larger, pytest.mark.slow]) for name in ("m0", "m1", "m2")),
]


@jax.jit
def similarities(a: jax.Array, b: jax.Array) -> Any:
    return [similarity(x, y) for x, y in zip(scales(a, NUM_SCALES), scales(b, NUM_SCALES), strict=True)]


@jax.jit
def ms_ssim_and_gradient(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    def ms_ssim(b):
        terms = zip(ms_ssim_terms(similarities(a, b)), SCALE_WEIGHTS, strict=True)
        return jnp.mean(jnp.prod(jnp.stack([jnp.maximum(term, 0) ** weight for term, weight in terms]), axis=0))

    return jax.value_and_grad(ms_ssim)(b)


@pytest.mark.parametrize(("name", "is_larger"), CASES)
def test_similarity_and_its_gradient(name, is_larger):
    case, index = FrozenCase("metrics", is_larger=is_larger), int(name[1:])
    a, b = (jnp.asarray(signed(image)) for image in case.pair_uint8(name))
    levels = np.array([[scale.ssim[0], scale.contrast[0]] for scale in similarities(a, b)])
    np.testing.assert_allclose(levels, case.arrays["levels"][index], rtol=0, atol=SIMILARITY_TERMS)
    value, gradient = ms_ssim_and_gradient(a, b)
    np.testing.assert_allclose(value, case.arrays["msssim_1"][index], rtol=0, atol=SIMILARITY)
    gradient = 2 * gradient[0]  # theirs is for pictures in [0, 1]
    assert case.error(f"msssim_{name}_grad", gradient) <= SIMILARITY_GRADIENT
    np.testing.assert_allclose(np.linalg.norm(gradient), case.arrays["msssim_grad_l2"][index], rtol=SIMILARITY_GRADIENT)


@pytest.mark.slow
def test_similarity_of_a_picture_and_its_inverse():
    case = FrozenCase("metrics")
    image = jnp.asarray(signed(case.image_uint8("m0")))
    levels = np.array([[scale.ssim[0], scale.contrast[0]] for scale in similarities(image, -image)])
    np.testing.assert_allclose(levels, case.arrays["levels"][3], rtol=0, atol=SIMILARITY_TERMS)
