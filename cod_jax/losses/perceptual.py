"""A perceptual distance that needs no weights: structural similarity and edges at several scales."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.losses.similarity import ms_ssim_terms, ms_ssim_weights, scales, similarity

SMALLEST_SIDE = 32
# Xue et al. 2014, "Gradient magnitude similarity deviation": 170 for values up to 255.
EDGE_STABILITY = 170 / 255**2
# Added to squared gradients, so that their root has a gradient where an image is flat.
EDGE_FLOOR = 1e-6


def structural_distance_per_image(a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    """Return the distance of each pair of images, float32: 0 for equal ones, about 1 for unrelated ones, at most 3.

    The sum of two distances, both averaged over the channels:

    - 1 minus the terms of MS-SSIM, weighted by their exponents. For similar images this is 1 - MS-SSIM, to first
      order. MS-SSIM itself, the product of the terms, has no bounded gradient where a term is near 0, and none where
      one is negative.
    - 1 minus the similarity of gradient magnitudes (Xue et al. 2014, equation 4), the mean over the scales. All scales
      count the same. MS-SSIM has only 4 % of its weight on the finest scale, the first to show blur.

    Args:
        a: Images in about [-1, 1] with sides of at least 32 pixels; small ones are compared at fewer scales than five.
        b: The images they are compared with.

    Raises:
        UserError: A side is shorter than 32 pixels.
    """
    _, height, width, _ = a.shape
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(
            f"expected images with sides of at least {SMALLEST_SIDE} pixels, got {height}x{width}; use larger images"
        )
    weights = ms_ssim_weights(height, width)
    pairs = list(zip(scales(a, len(weights)), scales(b, len(weights)), strict=True))
    terms = ms_ssim_terms([similarity(x, y) for x, y in pairs])
    structure = jnp.stack([w * (1 - jnp.mean(term, axis=-1)) for w, term in zip(weights, terms, strict=True)])
    edges = jnp.stack([_edge_distance(jnp.asarray(x), jnp.asarray(y)) for x, y in pairs])
    return jnp.sum(structure, axis=0) + jnp.mean(edges, axis=0)


def _edge_distance(a: Float[Array, "B h w C"], b: Float[Array, "B h w C"]) -> Float[Array, " B"]:
    """Return 1 minus the similarity of gradient magnitudes, a mean over positions and channels."""
    a, b = _gradient_magnitude(a), _gradient_magnitude(b)
    return jnp.mean((a - b) ** 2 / (a**2 + b**2 + EDGE_STABILITY), axis=(1, 2, 3))


def _gradient_magnitude(x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C"]:
    """Return the length of the gradient by Prewitt's operator, in units per two pixels, where it fits."""
    down = (x[:, :-2] + x[:, 1:-1] + x[:, 2:]) / 3
    right = (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) / 3
    horizontal = down[:, :, 2:] - down[:, :, :-2]
    vertical = right[:, 2:] - right[:, :-2]
    return jnp.sqrt(horizontal**2 + vertical**2 + EDGE_FLOOR)
