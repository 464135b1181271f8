"""DISTS (Ding et al. 2020): the distance of two pictures in structure and texture, in features of VGG16."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.features.dinov2 import normalize_imagenet
from cod_jax.features.trunk import VGG16, Stage, build_convs, stage_outputs

# c1 and c2 of the paper, added to both sides of each fraction.
TEXTURE_CONSTANT = STRUCTURE_CONSTANT = 1e-6
# Added in front of the root of the L2 pooling, so that it has a gradient at zero.
POOL_EPSILON = 1e-12


class DISTS(nnx.Module):
    """Two pictures to their distance.

    Args:
        stages: The trunk; every pooling is replaced by L2 pooling.
        dtype: Dtype of the trunk's computation, "float32" or "bfloat16"; what follows is float32, as are the
            parameters.
        rngs: Source of the initial values, which only tests use.
    """

    def __init__(self, stages: Sequence[Stage] = VGG16, *, dtype: str, rngs: nnx.Rngs):
        self.stages = tuple(stages)
        self.convs = build_convs(stages, dtype=dtype, rngs=rngs)
        channels = 3 + sum(stage.widths[-1] for stage in stages)
        self.alpha = nnx.Param(jnp.full((channels,), 1 / channels, jnp.float32), axes=("features",))
        self.beta = nnx.Param(jnp.full((channels,), 1 / channels, jnp.float32), axes=("features",))

    def distance(self, a01: Float[Array, "B H W 3"], b01: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Return the distance D(x, y; alpha, beta) of each pair of pictures in [0, 1]; 0 for equal ones."""
        return self.feature_distance(self.features(a01), self.features(b01))

    def feature_distance(
        self, a: Sequence[Float[Array, "B _h _w _C"]], b: Sequence[Float[Array, "B _h _w _C"]]
    ) -> Float[Array, " B"]:
        """Return the distance of each pair of pictures of which these are the `features`."""
        texture, structure = self.stage_distances(a, b)
        return jnp.sum(texture + structure, axis=0)

    def stage_distances(
        self, a: Sequence[Float[Array, "B _h _w _C"]], b: Sequence[Float[Array, "B _h _w _C"]]
    ) -> tuple[Float[Array, "S B"], Float[Array, "S B"]]:
        """Return the parts of the distance that texture and structure of the picture and of each stage add.

        Texture is the similarity of the means of a channel, l(x, y) in the paper, and structure that of its positions,
        s(x, y). What is added is one minus these, in a form that rounding does not disturb: of means m and n,
        1 - (2 m n + c) / (m^2 + n^2 + c) is (m - n)^2 / (m^2 + n^2 + c), and likewise of variances and covariance.

        Args:
            a: The `features` of one picture.
            b: Those of the other.
        """
        total = jnp.sum(self.alpha[...]) + jnp.sum(self.beta[...])
        texture, structure, start = [], [], 0
        for x, y in zip(a, b, strict=True):
            part = slice(start, start + x.shape[-1])
            start = part.stop
            mean_x, mean_y = _mean(x), _mean(y)
            variances = _mean((x - mean_x) ** 2) + _mean((y - mean_y) ** 2)
            of_means = (mean_x - mean_y) ** 2 / (mean_x**2 + mean_y**2 + TEXTURE_CONSTANT)
            of_positions = _mean(((x - mean_x) - (y - mean_y)) ** 2) / (variances + STRUCTURE_CONSTANT)
            for weights, parts, found in (
                (self.alpha, texture, of_means),
                (self.beta, structure, of_positions),
            ):
                parts.append(jnp.sum(found[:, 0, 0] * weights[...][None, part], axis=-1) / total)
        return jnp.stack(texture), jnp.stack(structure)

    def features(self, image01: Float[Array, "B H W 3"]) -> list[Float[Array, "B h w C"]]:
        """Return pictures in [0, 1] as they are, and the output of every stage for them, float32."""
        outputs = stage_outputs(self.stages, self.convs, normalize_imagenet(image01), lambda x, window: l2_pool(x))
        return [x.astype(jnp.float32) for x in (image01, *outputs)]


def l2_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """Return the root of the mean square around every second pixel, in float32; a size n becomes ceil(n / 2).

    Means are weighted by 1/4, 1/2, 1/4 in both directions, and what lies outside counts as zero (Hénaff and Simoncelli
    2016).
    """
    square = jnp.pad(x.astype(jnp.float32) ** 2, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for axis in (1, 2):
        size = square.shape[axis] - 2
        before, here, after = (
            jax.lax.slice_in_dim(square, start, start + size, stride=2, axis=axis) for start in range(3)
        )
        square = 0.25 * before + 0.5 * here + 0.25 * after
    return jnp.sqrt(square + POOL_EPSILON)


def _mean(x: Float[Array, "B h w C"]) -> Float[Array, "B 1 1 C"]:
    return jnp.mean(x, axis=(1, 2), keepdims=True)
