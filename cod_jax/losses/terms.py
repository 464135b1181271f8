"""Loss terms per image, their masked means, and the weighted sum of named terms; all float32."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cod_jax.errors import UserError

# Smallest product of two norms that is divided by.
COSINE_EPSILON = 1e-8


def squared_error_per_image(a: Float[Array, "B ..."], b: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Return the mean squared difference of each pair of images."""
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    return jnp.mean(difference**2, axis=tuple(range(1, difference.ndim)))


def cosine_distance_per_image(a: Float[Array, "B h w C"], b: Float[Array, "B h w C"]) -> Float[Array, " B"]:
    """Return 1 minus the cosine between the vectors at each position, averaged over positions."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    # The maximum also keeps the gradient finite at zero vectors.
    norms = jnp.sqrt(jnp.maximum(jnp.sum(a**2, axis=-1) * jnp.sum(b**2, axis=-1), COSINE_EPSILON**2))
    return 1 - jnp.mean(jnp.sum(a * b, axis=-1) / norms, axis=(1, 2))


def masked_mean(per_image: Float[Array, " B"], keep: Bool[Array, " B"]) -> Float[Array, ""]:
    """Return sum(keep * loss) / B: dropped images count as zero, so the scale does not depend on their number.

    The published code broadcasts the mask against the wrong axes, which only scales the term by the share of kept
    images. This function does what that code intends.
    """
    return jnp.mean(jnp.where(keep, per_image, 0.0))


def weighted_sum(terms: Mapping[str, jax.Array], weights: Mapping[str, float]) -> Float[Array, ""]:
    """Return the sum of weight times term.

    Raises:
        UserError: A term has no weight or a weight has no term.
    """
    if terms.keys() != weights.keys():
        different = ", ".join(sorted(terms.keys() ^ weights.keys()))
        raise UserError(f"expected a weight for each loss term, got {different} on one side only; correct the weights")
    return sum((weights[name] * terms[name] for name in terms), start=jnp.float32(0))
