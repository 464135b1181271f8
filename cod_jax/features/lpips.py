"""LPIPS v0.1 (Zhang et al. 2018): the distance of two pictures in features of VGG16 or AlexNet."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.features.trunk import Stage, build_convs, smallest_side, stage_outputs

# Mean and standard deviation that the trunks were trained with, of colours in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
# Added to the length of a feature vector, after the root; vectors no longer than this count as zero.
LENGTH_EPSILON = 1e-10


class LPIPS(nnx.Module):
    """Two pictures to their distance.

    Args:
        stages: The trunk, `VGG16` or `ALEXNET`.
        dtype: Dtype of the trunk's computation, "float32" or "bfloat16"; what follows is float32, as are the
            parameters.
        rngs: Source of the initial values, which only tests use.

    Attributes:
        smallest_side: Sides of pictures have at least this many pixels.
    """

    def __init__(self, stages: Sequence[Stage], *, dtype: str, rngs: nnx.Rngs):
        self.stages = tuple(stages)
        self.smallest_side = smallest_side(stages)
        self.convs = build_convs(stages, dtype=dtype, rngs=rngs)
        self.weights = nnx.List([])
        for stage in stages:
            channels = stage.widths[-1]
            self.weights.append(nnx.Param(jnp.full((channels,), 1 / channels, jnp.float32), axes=("features",)))

    def distance(self, a: Float[Array, "B H W 3"], b: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Return the distance of each pair of pictures in [-1, 1]; 0 for equal ones.

        Raises:
            UserError: A side is shorter than `smallest_side`.
        """
        return jnp.sum(self.stage_distances(a, b), axis=0)

    def stage_distances(self, a: Float[Array, "B H W 3"], b: Float[Array, "B H W 3"]) -> Float[Array, "S B"]:
        """Return the part of the distance that each stage adds (Zhang et al. 2018, equation 1).

        Raises:
            UserError: A side is shorter than `smallest_side`.
        """
        # Each picture goes through the trunk by itself, so that no gradient is computed for one that needs none.
        pairs = zip(self.features(a), self.features(b), self.weights, strict=True)
        return jnp.stack(
            [
                jnp.mean(jnp.sum((_unit(x) - _unit(y)) ** 2 * weight[...][None, None, None], axis=-1), axis=(1, 2))
                for x, y, weight in pairs
            ]
        )

    def features(self, image: Float[Array, "B H W 3"]) -> list[Float[Array, "B h w C"]]:
        """Return the output of every stage for pictures in [-1, 1].

        Raises:
            UserError: A side is shorter than `smallest_side`.
        """
        _, height, width, _ = image.shape
        if min(height, width) < self.smallest_side:
            raise UserError(
                f"expected both sides to have at least {self.smallest_side} pixels for this trunk, got {height}x{width}"
            )
        shift, scale = (np.array(values, np.float32)[None, None, None] for values in (SHIFT, SCALE))
        return stage_outputs(self.stages, self.convs, (image.astype(jnp.float32) - shift) / scale)


def _unit(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Divide feature vectors by their length, float32; zero vectors stay zero and pass no gradient."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    is_zero = square <= LENGTH_EPSILON**2
    # Where the result is not used, root and quotient are of harmless numbers: a gradient of 0 * inf would be NaN.
    length = jnp.sqrt(jnp.where(is_zero, 1.0, square))
    return jnp.where(is_zero, 0.0, x / (length + LENGTH_EPSILON))
