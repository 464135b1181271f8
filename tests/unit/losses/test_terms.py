"""Sums and means of loss terms."""

import jax.numpy as jnp
import pytest

from cod_jax.losses.terms import masked_mean, weighted_sum


def test_masked_mean_leaves_dropped_images_out():
    per_image, keep = jnp.array([1.0, 2.0, jnp.nan, 5.0]), jnp.array([True, True, False, False])
    assert float(masked_mean(per_image, keep)) == pytest.approx(0.75)


def test_terms_and_weights_must_match():
    with pytest.raises(ValueError, match="vq"):
        weighted_sum({"flow": jnp.float32(1)}, {"flow": 1.0, "vq": 0.5})
    with pytest.raises(ValueError, match="vq"):
        weighted_sum({"flow": jnp.float32(1), "vq": jnp.float32(1)}, {"flow": 1.0})
