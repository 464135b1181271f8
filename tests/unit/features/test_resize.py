"""The bicubic resize."""

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.features.resize import bicubic_resize
from tests.unit.features.networks import pictures


def test_resize_to_the_same_size_changes_nothing():
    x = pictures(2, 5, 7, 3)
    np.testing.assert_allclose(bicubic_resize(x, 5, 7), x, atol=1e-6)


def test_resize_keeps_a_constant_and_a_ramp_away_from_the_border():
    ramp = jnp.broadcast_to(jnp.arange(32.0)[None, :, None, None], (1, 32, 16, 1))
    np.testing.assert_allclose(bicubic_resize(jnp.ones_like(ramp), 28, 14), jnp.ones((1, 28, 14, 1)), atol=1e-6)
    # The kernel with a = -0.75 does not reproduce ramps exactly: its weights are off by a few hundredths of a pixel.
    expected = (np.arange(28) + 0.5) * 32 / 28 - 0.5
    np.testing.assert_allclose(bicubic_resize(ramp, 28, 14)[0, 2:-2, 3, 0], expected[2:-2], atol=0.05)


def test_resize_passes_gradients_by_the_transposed_weights():
    x, y = pictures(1, 8, 8, 1), pictures(1, 7, 7, 1)
    resized, pull_back = jax.vjp(lambda x: bicubic_resize(x, 7, 7), x)
    (gradient,) = pull_back(y)
    np.testing.assert_allclose(jnp.sum(resized * y), jnp.sum(x * gradient), rtol=1e-5)
    assert np.count_nonzero(gradient) == gradient.size


def test_the_extent_offset_moves_the_samples_together():
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, :, None, None], (1, 8, 1, 1))
    plain, moved = (bicubic_resize(ramp, 16, 1, extent_offset=offset)[0, :, 0, 0] for offset in (0.0, 0.1))
    assert np.all(moved[2:-2] < plain[2:-2])
    assert plain[-3] - moved[-3] > plain[2] - moved[2]


def test_resize_is_float32_for_bfloat16_input():
    assert bicubic_resize(pictures(1, 4, 4, 1).astype(jnp.bfloat16), 3, 3).dtype == jnp.float32
