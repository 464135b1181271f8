"""DINOv2's tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dinov2 import normalize_imagenet
from tests.model_fixtures import numpy_params
from tests.unit.features.networks import dinov2, pictures, run


def test_dinov2_gives_a_token_per_cell_and_layers_end_with_the_tokens():
    functional = dinov2()
    params = numpy_params(functional.shapes)
    image01 = pictures(2, 48, 32, 3)
    tokens = run(functional, "alignment_tokens", params, image01)
    assert tokens.shape == (2, 3, 2, 8)
    layers = run(functional, "discriminator_layers", params, normalize_imagenet(image01), ((0, 2),))
    assert layers.shape == (2, 2, 3, 2, 8)
    np.testing.assert_allclose(layers[1], tokens, atol=1e-5)
    assert not np.allclose(layers[0], tokens, atol=0.1)


def test_dinov2_takes_its_position_table_as_it_is_at_the_size_it_was_trained_at():
    functional = dinov2()
    params = numpy_params(functional.shapes)
    params["patch_embed"] = jax.tree.map(np.zeros_like, params["patch_embed"])
    embedded = run(functional, "embed", params, pictures(1, 6, 6, 3))
    table = params["positions"]
    np.testing.assert_allclose(embedded[0, 1:], table[1:], atol=1e-6)
    np.testing.assert_allclose(embedded[0, 0], table[0] + params["cls_token"], atol=1e-6)


def test_dinov2_computes_in_bfloat16_when_asked():
    functional = dinov2("bfloat16")
    params = numpy_params(functional.shapes)
    image01 = pictures(1, 48, 48, 3)
    tokens = run(functional, "alignment_tokens", params, image01)
    assert tokens.dtype == jnp.bfloat16
    expected = run(dinov2(), "alignment_tokens", params, image01)
    difference = np.linalg.norm(np.asarray(tokens, np.float32) - expected)
    assert 0 < difference < 0.03 * np.linalg.norm(expected)


def test_dinov2_refuses_sizes_and_layers_that_do_not_exist():
    network = dinov2().bind(dinov2().shapes)
    with pytest.raises(ValueError, match="multiples of 16 pixels, got 30x32"):
        jax.eval_shape(network.alignment_tokens, jnp.zeros((1, 30, 32, 3)))
    with pytest.raises(ValueError, match="multiples of 2 pixels, got 4x5"):
        jax.eval_shape(network, jnp.zeros((1, 4, 5, 3)))
    for layers in ((3,), (-1, 0), ()):
        with pytest.raises(ValueError, match="expected layers to be blocks from 0 to 2"):
            network.layers(jnp.zeros((1, 4, 4, 3)), layers)
