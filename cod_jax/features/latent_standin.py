"""A fixed linear stand-in for the VAE, for runs and tests of latent models without a weight file."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cod_jax.features.sizes import require_multiple
from cod_jax.nn.embeddings import patchify, unpatchify

STRIDE = 8
LATENT_CHANNELS = 4
# Brings the first channel to sqrt(3) times the mean of the block; of photographs it then has a spread of about 0.8,
# the second of 0.25 and the others of 0.15. One factor for all keeps distances of latents proportional to pixels'.
BLOCK_NORM = 8.0


def block_basis() -> Float[np.ndarray, "192 4"]:
    """Return four orthonormal pictures of 8x8 pixels as columns; rows are pixels row by row with R, G, B inside.

    In order: the mean of all values; the mean of red minus that of blue; the first cosine of the discrete cosine
    transform down the columns, and along the rows, both of R + G + B. They keep 90 % of the variance of photographs,
    which is 99.9 % of what the best four linear functions of a block keep.
    """
    flat = np.ones(STRIDE)
    wave = np.cos((np.arange(STRIDE) + 0.5) * np.pi / STRIDE)
    grey, warmth = np.array([1.0, 1.0, 1.0]), np.array([1.0, 0.0, -1.0])
    pictures = [
        np.einsum("i,j,c->ijc", rows, columns, colour).ravel()
        for rows, columns, colour in ((flat, flat, grey), (flat, flat, warmth), (wave, flat, grey), (flat, wave, grey))
    ]
    return np.stack([picture / np.linalg.norm(picture) for picture in pictures], axis=1).astype(np.float32)


class SpaceToDepthProjection:
    """Pictures to latents of the VAE's shape and back, by orthogonal projection of each block of 8x8 pixels."""

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w 4"]:
        """Return latents [B, H / 8, W / 8, 4] of about [-1.7, 1.7], float32, of pictures in [-1, 1].

        Raises:
            UserError: A side is not a multiple of 8.
        """
        require_multiple(image, STRIDE)
        blocks = patchify(image.astype(jnp.float32), STRIDE)
        return _product(blocks.reshape(*blocks.shape[:3], -1), block_basis()) / BLOCK_NORM

    def decode(self, latent: Float[Array, "B h w 4"]) -> Float[Array, "B H W 3"]:
        """Return pictures [B, 8 h, 8 w, 3], float32: the nearest to the encoded ones that latents can describe."""
        blocks = _product(latent.astype(jnp.float32), block_basis().T) * BLOCK_NORM
        return unpatchify(blocks.reshape(*blocks.shape[:3], STRIDE**2, 3), STRIDE)


def _product(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    return jnp.dot(x, jnp.asarray(matrix), precision=jax.lax.Precision.HIGHEST)
