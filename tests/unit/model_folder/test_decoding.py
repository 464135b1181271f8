"""The settings of decoding."""

from typing import get_args

import numpy as np
import pytest

from cod_jax.diffusion import samplers
from cod_jax.model_folder.decoding import DecodingConfig, Sampler, checked_seed


def test_the_samplers_are_those_of_the_diffusion_package():
    assert set(get_args(Sampler)) == set(get_args(samplers.Method))


def test_what_is_not_chosen_stays():
    stored = DecodingConfig(25, 3.0, "adams")
    assert stored.override() == stored
    assert stored.override(steps=1) == DecodingConfig(1, 3.0, "adams")
    assert stored.override(guidance=0, sampler="euler") == DecodingConfig(25, 0.0, "euler")


def test_numbers_of_numpy_are_numbers():
    chosen = DecodingConfig().override(steps=np.int64(4), guidance=np.float32(1.5))
    assert chosen == DecodingConfig(4, 1.5)
    assert type(chosen.num_steps) is int
    assert type(chosen.guidance_scale) is float
    assert type(checked_seed(np.uint64(2**63 - 1))) is int


@pytest.mark.parametrize("chosen", [{"steps": "3"}, {"steps": 1.5}, {"guidance": True}, {"sampler": 1}])
def test_values_of_another_kind_are_refused(chosen):
    with pytest.raises(ValueError, match=r"expected .*, got "):
        DecodingConfig().override(**chosen)


def test_the_summary_names_what_matters():
    assert DecodingConfig(25, 1.25, "adams").summary() == "25 steps, adams, guidance 1.25"
    assert DecodingConfig(1, 3.0).summary() == "1 step; with more: euler, guidance 3"
