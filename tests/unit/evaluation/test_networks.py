"""Metrics in the features of networks."""

import pickle
from typing import Any

import jax.numpy as jnp
import pytest

from cod_jax.errors import UserError
from cod_jax.evaluation.networks import LpipsAlex
from cod_jax.evaluation.results import describe_metrics
from cod_jax.features.lpips import ALEXNET, LPIPS
from cod_jax.models.functional import Functional
from tests.model_fixtures import gradient_image, numpy_params

NETWORK = Functional(lambda rngs: LPIPS(ALEXNET, dtype="float32", rngs=rngs))


def load(folder: str, trunk: str) -> Any:
    return numpy_params(NETWORK.shapes)


def test_lpips_is_that_of_the_network_on_values_from_minus_one_to_one():
    original = gradient_image(40, 48)
    decoded = original[::-1].copy()
    metric = pickle.loads(pickle.dumps(LpipsAlex(load, "weights", "1234")))  # other processes get a copy
    a, b = (jnp.asarray(picture, jnp.float32)[None] / 127.5 - 1 for picture in (original, decoded))
    expected = NETWORK.bind(load("", "")).distance(a, b)[0]
    assert metric.measure(original, decoded, 0) == pytest.approx(float(expected), rel=1e-4)
    assert metric.measure(original, original, 0) == 0
    with pytest.raises(UserError, match="expected both sides to have at least"):
        metric.measure(original[:8], decoded[:8], 0)
    (described,) = describe_metrics([metric])
    assert (described["weights_sha256"], described["better"]) == ("1234", "lower")
