"""Hinge losses of a discriminator, and the loss of its adversary (Lim and Ye 2017).

The discriminator learns high logits for real images and low ones for reconstructions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def real_hinge_loss(logits: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the mean of max(0, 1 - logit): real images should get logits above 1."""
    return jnp.mean(jax.nn.relu(1 - logits.astype(jnp.float32)))


def fake_hinge_loss(logits: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the mean of max(0, 1 + logit): reconstructions should get logits below -1."""
    return jnp.mean(jax.nn.relu(1 + logits.astype(jnp.float32)))


def discriminator_loss(real_logits: Float[Array, "..."], fake_logits: Float[Array, "..."]) -> Float[Array, ""]:
    """Return half the sum of both hinge losses."""
    return 0.5 * (fake_hinge_loss(fake_logits) + real_hinge_loss(real_logits))


def generator_loss(fake_logits: Float[Array, "..."]) -> Float[Array, ""]:
    """Return minus the mean logit of reconstructions."""
    return -jnp.mean(fake_logits.astype(jnp.float32))
