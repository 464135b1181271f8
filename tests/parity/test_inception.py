"""Inception-v3 with synthetic weights, its three preparations, and patch-FID, against the published implementations."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.evaluation.patch_fid import PatchFid, distance
from cod_jax.features.inception import PLACEMENTS, SIDE, Inception, Preparation, prepare
from cod_jax.features.resize import bilinear_resize
from cod_jax.interop.frozen_networks.inception import inception_params_from_state_dict
from cod_jax.models.functional import Functional
from tests.parity.cases import FrozenCase, frozen_cases, frozen_state_dict, relative_error
from tests.parity.tolerances import FID_CHAIN, INCEPTION

NETWORK = Functional(lambda rngs: Inception(dtype="float32", rngs=rngs))
SHORT: dict[str, Preparation] = {"tm": "torchmetrics", "tf1": "torch-fidelity", "pf": "pytorch-fid"}
# Places in the network of the other features that FID is measured with.
PLACES = {"64": 1, "192": 3, "768": 11, "2048": 14}


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.tree.map(jnp.asarray, inception_params_from_state_dict(frozen_state_dict("inception")))


@jax.jit
def block_means(params: Any, image: jax.Array) -> list[jax.Array]:
    return NETWORK.bind(params).block_means(image)


def test_every_preparation_is_compared():
    assert set(SHORT.values()) == set(get_args(Preparation))


@pytest.mark.parametrize("short", SHORT)
@pytest.mark.parametrize(("name", "is_larger"), frozen_cases("i64", "ibig", larger=("i64", "ibig")))
def test_resize(short, name, is_larger):
    case = FrozenCase("inception", is_larger=is_larger)
    picture = jnp.asarray(case.image_uint8(f"{name}_0"), jnp.float32)
    resized = np.asarray(bilinear_resize(picture, SIDE, SIDE, PLACEMENTS[SHORT[short]]))[0]
    assert case.error(f"{name}_{short}_resized", resized) <= INCEPTION
    step = {60: 5, 43: 7}[len(case.arrays[f"{name}_{short}_resized"])]
    assert relative_error(resized[::step, -6:], case.arrays[f"{name}_{short}_resized_right"]) <= INCEPTION


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_larger"), frozen_cases("i64", "i299", "ibig", larger=("i64", "i299", "ibig")))
def test_features(params, name, is_larger):
    case = FrozenCase("inception", is_larger=is_larger)
    for short, preparation in SHORT.items():
        number = len(case.arrays[f"{name}_{short}_2048"])
        for index in range(number):
            picture = jnp.asarray(case.image_uint8(f"{name}_{index}"))
            means = block_means(params, prepare(picture, preparation))
            for features, place in PLACES.items():
                if features == "2048" or short == "tf1":
                    expected = case.arrays[f"{name}_{short}_{features}"][index]
                    assert relative_error(means[place][0], expected) <= INCEPTION


@pytest.mark.slow
def test_patch_fid_of_a_picture_and_its_block_means(params):
    """Follow the whole chain, from pictures to the distance, on 23 patches each."""
    case = FrozenCase("fid")
    picture = case.image_uint8("pfid")[0]
    height, width, _ = picture.shape
    blocks = picture.reshape(height // 8, 8, width // 8, 8, 3).astype(np.int64).sum(axis=(1, 3)) // 64
    changed = blocks.astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    patch_fid = PatchFid(lambda folder: params, "").of_size(64)
    value = distance(*([patch_fid.features(image)] for image in (picture, changed)))
    assert value == pytest.approx(float(case.arrays["pfid_tm_2048_svd"]), rel=FID_CHAIN)
