"""Terms per image, their masked means, and the weighted sum of named terms; all float32."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cod_jax.errors import UserError

# Floor of the product of two norms.
COSINE_EPSILON = 1e-8


def squared_error_per_image(a: Float[Array, "B ..."], b: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Mean squared difference of each image."""
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    return jnp.mean(difference**2, axis=tuple(range(1, difference.ndim)))


def cosine_distance_per_image(a: Float[Array, "B h w C"], b: Float[Array, "B h w C"]) -> Float[Array, " B"]:
    """1 - the cosine between the vectors at each position, averaged over positions."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    # The norms have a floor, and below it no gradient that is not a number.
    norms = jnp.sqrt(jnp.maximum(jnp.sum(a**2, axis=-1) * jnp.sum(b**2, axis=-1), COSINE_EPSILON**2))
    return 1 - jnp.mean(jnp.sum(a * b, axis=-1) / norms, axis=(1, 2))


def masked_mean(per_image: Float[Array, " B"], keep: Bool[Array, " B"]) -> Float[Array, ""]:
    """sum(keep * loss) / B: dropped images count as zero, so that the scale does not depend on how many there are.

    The published code broadcasts the mask against the wrong axes and so only scales the term by the batch's share of
    kept images; this is what it means to do.
    """
    return jnp.mean(jnp.where(keep, per_image, 0.0))


def weighted_sum(terms: Mapping[str, jax.Array], weights: Mapping[str, float]) -> Float[Array, ""]:
    """Sum of weight times term.

    Raises:
        UserError: A term has no weight or a weight has no term.
    """
    if terms.keys() != weights.keys():
        different = ", ".join(sorted(terms.keys() ^ weights.keys()))
        raise UserError(f"loss terms and weights do not match: {different} stand on one side only")
    return sum((weights[name] * terms[name] for name in terms), start=jnp.float32(0))
