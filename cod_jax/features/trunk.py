"""Convolutional trunks of classifiers of ImageNet, VGG16 and AlexNet, in stages whose outputs are compared."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.nn.layers import Conv


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


def build_convs(stages: Sequence[Stage], *, dtype: str, rngs: nnx.Rngs) -> nnx.List:
    """Return the convolutions of a trunk for pictures [B, H, W, 3], those of all stages in one list."""
    convs, channels = nnx.List([]), 3
    for stage in stages:
        around = (stage.padding, stage.padding)
        for width in stage.widths:
            convs.append(
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
    return convs


def max_pool(x: Float[Array, "B H W C"], window: int) -> Float[Array, "B H2 W2 C"]:
    """Return the largest values in windows of this side, which move by 2 pixels; nothing is padded."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID")


def stage_outputs(
    stages: Sequence[Stage],
    convs: Iterable[Conv],
    x: Float[Array, "B H W 3"],
    pool: Callable[[Float[Array, "B H W C"], int], Float[Array, "B H2 W2 C"]] = max_pool,
) -> list[Float[Array, "B h w C"]]:
    """Return the output of every stage.

    Args:
        stages: The trunk.
        convs: Its convolutions, see `build_convs`.
        x: Pictures, normalised as the trunk takes them.
        pool: Pooling of stages that have one; it gets values and the side of the window.
    """
    outputs, layers = [], iter(convs)
    for stage in stages:
        if stage.pool:
            x = pool(x, stage.pool)
        for _ in stage.widths:
            x = jax.nn.relu(next(layers)(x))
        outputs.append(x)
    return outputs


def smallest_side(stages: Sequence[Stage]) -> int:
    """Return the pixels that one position at the last stage needs, with max pooling."""
    side = 1
    for stage in reversed(stages):
        for _ in stage.widths:
            side = max(1, (side - 1) * stage.stride + stage.kernel_size - 2 * stage.padding)
        if stage.pool:
            side = (side - 1) * 2 + stage.pool
    return side
