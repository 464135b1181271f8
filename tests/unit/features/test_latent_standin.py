"""The stand-in for the autoencoder."""

import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.latent_standin import SpaceToDepthProjection, block_basis
from tests.unit.features.networks import pictures


def test_the_standin_projects_orthogonally():
    basis = block_basis().astype(np.float64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-6)
    standin = SpaceToDepthProjection()
    latent = pictures(2, 2, 3, 4, low=-1)
    image = standin.decode(latent)
    assert image.shape == (2, 16, 24, 3)
    np.testing.assert_allclose(standin.encode(image), latent, atol=1e-5)
    # Distances of latents are those of pictures, up to one factor.
    np.testing.assert_allclose(jnp.linalg.norm(image), 8 * jnp.linalg.norm(latent), rtol=1e-5)


def test_the_standin_keeps_the_colour_and_the_slope_of_a_block():
    standin = SpaceToDepthProjection()
    orange = jnp.broadcast_to(jnp.array([0.6, 0.0, -0.6]), (1, 8, 8, 3))
    np.testing.assert_allclose(standin.decode(standin.encode(orange)), orange, atol=1e-5)
    white = jnp.ones((1, 8, 16, 3))
    np.testing.assert_allclose(standin.encode(white)[0, 0, 1], [3**0.5, 0, 0, 0], atol=1e-5)
    ramp = jnp.broadcast_to(jnp.linspace(-1, 1, 8)[None, :, None, None], (1, 8, 8, 3))
    for steep in (ramp, ramp.swapaxes(1, 2)):
        error = jnp.mean((standin.decode(standin.encode(steep)) - steep) ** 2)
        assert error < 0.02 * jnp.mean(steep**2)


def test_the_standin_refuses_sizes_that_are_not_multiples_of_8():
    with pytest.raises(ValueError, match="multiples of 8 pixels, got 12x8"):
        SpaceToDepthProjection().encode(jnp.zeros((1, 12, 8, 3)))
