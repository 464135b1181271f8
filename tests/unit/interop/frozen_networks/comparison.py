"""How the tests of frozen networks compare parameters."""

from typing import Any

import numpy as np

from cod_jax.models.functional import flatten_params


def assert_equal(actual: Any, expected: Any) -> None:
    actual, expected = flatten_params(actual), flatten_params(expected)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
