"""The bicubic resize against the published networks' library."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.resize import bicubic_resize
from tests.parity.cases import WITH_LARGER, FrozenCase, frozen_cases
from tests.parity.tolerances import RESIZE


@pytest.mark.parametrize(("name", "is_larger"), frozen_cases("r0", "r1", larger=("r0", "r1", "r2")))
def test_pictures_at_14_16_of_their_size(name, is_larger):
    case = FrozenCase("resize", is_larger=is_larger)
    height, width = case.arrays[f"{name}_out_hw"].tolist()
    resized = np.asarray(bicubic_resize(jnp.asarray(case.image01(name)), height, width))[0]
    assert case.error(name, resized) <= RESIZE
    borders = {"top": resized[:4], "bottom": resized[-4:], "left": resized[:, :4], "right": resized[:, -4:]}
    for side, values in borders.items():
        assert case.error(f"{name}_{side}", values) <= RESIZE


@pytest.mark.parametrize("is_larger", WITH_LARGER)
def test_gradient(is_larger):
    case = FrozenCase("resize", is_larger=is_larger)
    x, cotangent = (jnp.asarray(case.arrays[name])[None] for name in ("g_x", "g_cot"))
    height, width = cotangent.shape[1:3]
    resized, pull_back = jax.vjp(lambda x: bicubic_resize(x, height, width), x)
    assert case.error("g_y", resized[0]) <= RESIZE
    assert case.error("g_dx", pull_back(cotangent)[0][0]) <= RESIZE
