"""LPIPS v0.1 (Zhang et al. 2018): the distance of two pictures in features of VGG16 or AlexNet."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.nn.layers import Conv

# Mean and standard deviation that the trunks were trained with, of colours in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
# Added to the length of a feature vector, after the root; vectors no longer than this count as zero.
LENGTH_EPSILON = 1e-10


@dataclasses.dataclass(frozen=True)
class Stage:
    """Convolutions, each followed by ReLU; the output of the last is compared.

    Attributes:
        widths: Output channels of the convolutions.
        kernel_size: Side of their kernels in pixels.
        stride: Their step in both directions.
        padding: Zeros on each of the four sides.
        pool: Side of the max pooling window in front of them, which moves by 2 pixels; 0 for no pooling.
    """

    widths: tuple[int, ...]
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0


VGG16 = (
    Stage((64, 64)),
    Stage((128, 128), pool=2),
    Stage((256, 256, 256), pool=2),
    Stage((512, 512, 512), pool=2),
    Stage((512, 512, 512), pool=2),
)
ALEXNET = (
    Stage((64,), kernel_size=11, stride=4, padding=2),
    Stage((192,), kernel_size=5, padding=2, pool=3),
    Stage((384,), pool=3),
    Stage((256,)),
    Stage((256,)),
)


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
        self.smallest_side = _smallest_side(stages)
        self.convs = nnx.List([])
        self.weights = nnx.List([])
        channels = 3
        for stage in stages:
            around = (stage.padding, stage.padding)
            for width in stage.widths:
                self.convs.append(
                    Conv(
                        channels,
                        width,
                        stage.kernel_size,
                        stride=stage.stride,
                        padding=(around, around),
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                channels = width
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
        x = (image.astype(jnp.float32) - shift) / scale
        outputs, convs = [], iter(self.convs)
        for stage in self.stages:
            if stage.pool:
                window = (1, stage.pool, stage.pool, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
            for _ in stage.widths:
                x = jax.nn.relu(next(convs)(x))
            outputs.append(x)
        return outputs


def _unit(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Divide feature vectors by their length, float32; zero vectors stay zero and pass no gradient."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    is_zero = square <= LENGTH_EPSILON**2
    # Where the result is not used, root and quotient are of harmless numbers: a gradient of 0 * inf would be NaN.
    length = jnp.sqrt(jnp.where(is_zero, 1.0, square))
    return jnp.where(is_zero, 0.0, x / (length + LENGTH_EPSILON))


def _smallest_side(stages: Sequence[Stage]) -> int:
    """Return the pixels that one position at the last stage needs."""
    side = 1
    for stage in reversed(stages):
        for _ in stage.widths:
            side = max(1, (side - 1) * stage.stride + stage.kernel_size - 2 * stage.padding)
        if stage.pool:
            side = (side - 1) * 2 + stage.pool
    return side
