"""PSNR, SSIM at each scale, and MS-SSIM against the published implementation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.evaluation import metrics
from cod_jax.losses.similarity import SCALE_WEIGHTS, ms_ssim_per_image, scales, similarity
from tests.parity.cases import FrozenCase, frozen_cases, signed
from tests.parity.tolerances import SIMILARITY, SIMILARITY_GRADIENT, SIMILARITY_TERMS

NUM_SCALES = len(SCALE_WEIGHTS)
# m1 has odd sides at several scales.
CASES = frozen_cases("m1", slow=("m0", "m2"), larger=("m0", "m1", "m2"))


@jax.jit
def similarities(a: jax.Array, b: jax.Array) -> Any:
    return [similarity(x, y) for x, y in zip(scales(a, NUM_SCALES), scales(b, NUM_SCALES), strict=True)]


@jax.jit
def ms_ssim_and_gradient(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.value_and_grad(lambda b: jnp.mean(ms_ssim_per_image(a, b)))(b)


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


@pytest.mark.parametrize(("name", "is_larger"), [(f"m{i}", False) for i in range(3)])
def test_metrics_of_evaluation(name, is_larger):
    case, index = FrozenCase("metrics", is_larger=is_larger), int(name[1:])
    a, b = (image[0] for image in case.pair_uint8(name))
    np.testing.assert_allclose(metrics.psnr(a, b), case.arrays["psnr_f64"][index], rtol=0, atol=1e-6)
    # Theirs has a window of float32.
    np.testing.assert_allclose(metrics.ms_ssim(a, b), case.arrays["msssim_255_f64"][index], rtol=0, atol=5e-6)


@pytest.mark.slow
def test_similarity_of_a_picture_and_its_inverse():
    case = FrozenCase("metrics")
    image = jnp.asarray(signed(case.image_uint8("m0")))
    levels = np.array([[scale.ssim[0], scale.contrast[0]] for scale in similarities(image, -image)])
    np.testing.assert_allclose(levels, case.arrays["levels"][3], rtol=0, atol=SIMILARITY_TERMS)
