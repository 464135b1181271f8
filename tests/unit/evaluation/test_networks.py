"""Metrics in the features of networks."""

import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cod_jax.errors import UserError
from cod_jax.evaluation import networks
from cod_jax.evaluation.networks import Dists, LpipsAlex
from cod_jax.evaluation.results import describe_metrics
from cod_jax.features.lpips import LPIPS
from cod_jax.features.trunk import ALEXNET, VGG16
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


def test_dists_gets_values_from_zero_to_one_and_the_features_of_an_original_once(monkeypatch):
    calls = []

    def compiled(build: Any, params: str) -> Any:
        assert (nnx.eval_shape(lambda: build(nnx.Rngs(0))).stages, params) == (VGG16, "those in weights")

        def call(method: str, *arguments: Any) -> Any:
            calls.append(method)
            return {"features": np.sum, "feature_distance": lambda a, b: [a - 10 * b]}[method](*arguments)

        return call

    monkeypatch.setattr(networks, "_compiled", compiled)
    metric = Dists(lambda folder: f"those in {folder}", "weights", "5678")
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert metric.measure(white, black, 0) == 12
    assert metric.measure(white, white, 0) == 12 - 120
    assert calls == ["features", "features", "feature_distance", "features", "feature_distance"]
    assert metric.measure(black, white, 0) == -120
    (described,) = describe_metrics([metric])
    assert (described["name"], described["weights_sha256"], described["better"]) == ("dists", "5678", "lower")
