"""Inception-v3's shapes, poolings, and what is put in front of it."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.inception import Branch, Inception, Layer, Preparation, prepare
from cod_jax.models.functional import Functional
from tests.model_fixtures import numpy_params


def test_the_network_has_2048_features():
    network = Functional(lambda rngs: Inception(dtype="float32", rngs=rngs))
    image = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    means = jax.eval_shape(lambda params, x: network.bind(params).block_means(x), network.shapes, image)
    assert [mean.shape for mean in (means[1], means[3], means[11], means[-1])] == [(2, n) for n in (64, 192, 768, 2048)]


def test_branches_are_joined_in_order_and_forks_share_their_input():
    blocks = (
        (
            Branch((Layer(2),), pool="mean"),
            Branch((Layer(3), Layer(4, (1, 3)), Layer(5, (3, 1))), forks=True),
            Branch(pool="max"),
        ),
    )
    network = Functional(lambda rngs: Inception(blocks, dtype="float32", rngs=rngs))
    params = jax.tree.map(jnp.asarray, numpy_params(network.shapes))
    params = {"layers": {i: {**one, "variance": jnp.abs(one["variance"])} for i, one in params["layers"].items()}}
    x = jnp.full((1, 4, 5, 3), 0.5)
    (means,) = network.bind(params).block_means(x)
    assert means.shape == (1, 2 + 4 + 5 + 3)
    # What lies outside a picture counts neither for the mean nor for the largest value.
    layer = params["layers"][0]
    gain = layer["scale"] / jnp.sqrt(layer["variance"] + 1e-3)
    expected = jax.nn.relu((0.5 * layer["kernel"][0, 0].sum(axis=0) - layer["mean"]) * gain + layer["bias"])
    np.testing.assert_allclose(means[0, :2], expected, rtol=1e-5)
    np.testing.assert_allclose(means[0, -3:], 0.5)


@pytest.mark.parametrize("name", get_args(Preparation))
def test_pictures_are_resized_and_scaled(name):
    picture = np.zeros((1, 64, 80, 3), np.uint8)
    picture[:, 32:] = 255
    prepared = np.asarray(prepare(jnp.asarray(picture), name))
    assert prepared.shape == (1, 299, 299, 3)
    np.testing.assert_allclose(prepared[0, 0], -1, rtol=1e-6)
    np.testing.assert_allclose(prepared[0, -1], 1 if name == "pytorch-fid" else 127 / 128, rtol=1e-6)
