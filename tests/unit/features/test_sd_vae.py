"""The frozen autoencoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.sd_vae import LATENT_SCALE, Moments, SDVAEConfig
from tests.model_fixtures import numpy_params
from tests.unit.features.networks import pictures, run, vae


def test_vae_encodes_and_decodes_at_its_stride():
    functional = vae()
    params = numpy_params(functional.shapes)
    moments = run(functional, "encode_moments", params, pictures(1, 6, 4, 3, low=-1))
    assert moments.mean.shape == moments.logvar.shape == (1, 3, 2, 4)
    assert run(functional, "decode", params, moments.mean).shape == (1, 6, 4, 3)


def test_vae_results_are_float32_in_a_bfloat16_network():
    functional = vae("bfloat16")
    image = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    moments = jax.eval_shape(lambda p, x: functional.bind(p).encode_moments(x), functional.shapes, image)
    decoded = jax.eval_shape(lambda p, x: functional.bind(p).decode(x), functional.shapes, moments.mean)
    assert {x.dtype.name for x in (moments.mean, moments.logvar, decoded)} == {"float32"}


def test_moments_sample_is_the_mean_plus_scaled_noise():
    moments = Moments.from_channels(jnp.array([1.0, 2.0, 0.0, -100.0])[None, None, None])
    np.testing.assert_allclose(moments.sample(jnp.full((1, 1, 1, 2), 3.0))[0, 0, 0], [4.0, 2.0], rtol=1e-5)


def test_vae_refuses_sizes_that_are_not_multiples_of_its_stride():
    network = vae().bind(vae().shapes)
    with pytest.raises(ValueError, match="multiples of 2 pixels, got 5x4"):
        jax.eval_shape(network.encode_moments, jnp.zeros((1, 5, 4, 3)))


def test_published_vae_divides_sizes_by_8_and_its_latents_are_scaled_twice():
    assert SDVAEConfig().stride == 8
    assert round(LATENT_SCALE, 6) == 0.033179
