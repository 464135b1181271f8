"""Modules as pure functions of their parameters."""

import jax
import numpy as np
import pytest

from cod_jax.models import (
    flatten_params,
    unflatten_params,
)


def test_every_parameter_names_its_axes(tiny):
    functional, _ = tiny
    axes = flatten_params(functional.axes)
    for name, shape in flatten_params(functional.shapes).items():
        assert len(axes[name]) == len(shape.shape), name


def test_parameters_survive_flattening(tiny):
    functional, params = tiny
    again = unflatten_params(flatten_params(params), functional.shapes)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_parameters_that_do_not_fit_are_refused_with_three_lists(tiny):
    functional, params = tiny
    flat = flatten_params(params)
    del flat["denoiser/merge/bias"]
    flat["denoiser/unmerge/bias"] = np.zeros(3)
    flat["codec/bottleneck/codebook"] = np.zeros((2, 2))
    with pytest.raises(ValueError, match="do not fit") as error:
        unflatten_params(flat, functional.shapes)
    assert "missing (1): denoiser/merge/bias" in str(error.value)
    assert "unexpected (1): denoiser/unmerge/bias" in str(error.value)
    assert "codec/bottleneck/codebook (2, 2) instead of (16, 8)" in str(error.value)
    # Binding checks as well: merging alone would go by order.
    swapped = {"denoiser": params["denoiser"], "codec": {**params["codec"], "decoder": params["codec"]["encoder"]}}
    with pytest.raises(ValueError, match="do not fit"):
        functional.bind(swapped)
