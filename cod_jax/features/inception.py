"""Inception-v3 as the Fréchet distance takes it: the network of TensorFlow of 2015-12-05 (Szegedy et al. 2016)."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from cod_jax.features.resize import Placement, bilinear_resize
from cod_jax.nn.layers import xavier_uniform

SIDE = 299
NORM_EPSILON = 1e-3

Preparation = Literal["torchmetrics", "torch-fidelity", "pytorch-fid"]
"""The resize and the range that a library of this name puts in front of the network: torchmetrics from 1.8 on."""
PLACEMENTS: dict[Preparation, Placement] = {
    "torchmetrics": "antialiased",
    "torch-fidelity": "corners",
    "pytorch-fid": "centers",
}


class Layer(NamedTuple):
    """Convolution without bias, norm, ReLU.

    Attributes:
        width: Output channels.
        kernel: Height and width of the kernel.
        stride: Step in both directions.
        padded: Whether zeros around the input keep its size.
    """

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Branch(NamedTuple):
    """One of the paths side by side in a block, whose outputs are joined along the channels.

    Attributes:
        layers: In their order.
        pool: Pooling in front of them, in windows of 3x3: "mean" and "max" keep the size, and "halve" takes the largest
            values at every second position.
        forks: Whether the last two layers both take what stands in front of them, and their outputs are joined.
    """

    layers: tuple[Layer, ...] = ()
    pool: Literal["", "mean", "max", "halve"] = ""
    forks: bool = False


Block = tuple[Branch, ...]


def _fine(pool_width: int) -> Block:
    """Return a block at 35 x 35 positions."""
    return (
        Branch((Layer(64),)),
        Branch((Layer(48), Layer(64, (5, 5)))),
        Branch((Layer(64), Layer(96, (3, 3)), Layer(96, (3, 3)))),
        Branch((Layer(pool_width),), pool="mean"),
    )


def _middle(width: int) -> Block:
    """Return a block at 17 x 17 positions."""
    along, down = (1, 7), (7, 1)
    return (
        Branch((Layer(192),)),
        Branch((Layer(width), Layer(width, along), Layer(192, down))),
        Branch((Layer(width), Layer(width, down), Layer(width, along), Layer(width, down), Layer(192, along))),
        Branch((Layer(192),), pool="mean"),
    )


def _coarse(pool: Literal["mean", "max"]) -> Block:
    """Return a block at 8 x 8 positions."""
    along, down = (1, 3), (3, 1)
    return (
        Branch((Layer(320),)),
        Branch((Layer(384), Layer(384, along), Layer(384, down)), forks=True),
        Branch((Layer(448), Layer(384, (3, 3)), Layer(384, along), Layer(384, down)), forks=True),
        Branch((Layer(192),), pool=pool),
    )


_HALVE = (Branch(pool="halve"),)
BLOCKS: tuple[Block, ...] = (
    (Branch((Layer(32, (3, 3), 2, padded=False), Layer(32, (3, 3), padded=False), Layer(64, (3, 3)))),),
    _HALVE,
    (Branch((Layer(80), Layer(192, (3, 3), padded=False))),),
    _HALVE,
    _fine(32),
    _fine(64),
    _fine(64),
    (
        Branch((Layer(384, (3, 3), 2, padded=False),)),
        Branch((Layer(64), Layer(96, (3, 3)), Layer(96, (3, 3), 2, padded=False))),
        Branch(pool="halve"),
    ),
    _middle(128),
    _middle(160),
    _middle(160),
    _middle(192),
    (
        Branch((Layer(192), Layer(320, (3, 3), 2, padded=False))),
        Branch((Layer(192), Layer(192, (1, 7)), Layer(192, (7, 1)), Layer(192, (3, 3), 2, padded=False))),
        Branch(pool="halve"),
    ),
    _coarse("mean"),
    # The port that all figures are measured with has a max pooling here, where the paper has the mean.
    _coarse("max"),
)


class NormedConv(nnx.Module):
    """Convolution without bias, batch norm by stored statistics, and ReLU.

    Args:
        in_features: Input channels.
        layer: Description of the convolution.
        dtype: Dtype of the computation; the parameters are float32.
        rngs: Source of the initial values, which only tests use.
    """

    def __init__(self, in_features: int, layer: Layer, *, dtype: str, rngs: nnx.Rngs):
        height, width = layer.kernel
        self.stride, self.dtype = layer.stride, dtype
        self.padding = tuple((size // 2, size // 2) if layer.padded else (0, 0) for size in layer.kernel)
        kernel = xavier_uniform(rngs.params(), (height, width, in_features, layer.width), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=("kernel", "kernel", "conv_in", "conv_out"))
        self.scale = nnx.Param(jnp.ones(layer.width), axes=("conv_out",))
        self.bias = nnx.Param(jnp.zeros(layer.width), axes=("conv_out",))
        self.mean = nnx.Param(jnp.zeros(layer.width), axes=("conv_out",))
        self.variance = nnx.Param(jnp.ones(layer.width), axes=("conv_out",))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
        """Map [B, H, W, in_features]."""
        x = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).astype(jnp.float32)
        gain = self.scale[...] / jnp.sqrt(self.variance[...] + NORM_EPSILON)
        shift = self.bias[...] - self.mean[...] * gain
        return jax.nn.relu(x * gain[None, None, None] + shift[None, None, None])


class Inception(nnx.Module):
    """Pictures to features; the classifier behind them is left out.

    Args:
        blocks: Description of the network.
        dtype: Dtype of the convolutions, "float32" or "bfloat16"; the rest is float32, as are the parameters.
        rngs: Source of the initial values, which only tests use.
    """

    def __init__(self, blocks: tuple[Block, ...] = BLOCKS, *, dtype: str, rngs: nnx.Rngs):
        self.blocks = blocks
        self.layers = nnx.List([])
        channels = 3
        for block in blocks:
            joined = 0
            for branch in block:
                widths = [channels, *(layer.width for layer in branch.layers)]
                inputs = [*widths[:-2], widths[-3]] if branch.forks else widths[:-1]
                for in_features, layer in zip(inputs, branch.layers, strict=True):
                    self.layers.append(NormedConv(in_features, layer, dtype=dtype, rngs=rngs))
                joined += sum(widths[-2:]) if branch.forks else widths[-1]
            channels = joined

    def features(self, image: Float[Array, "B 299 299 3"]) -> Float[Array, "B C"]:
        """Return the features, 2048 of each picture, of pictures as `prepare` makes them."""
        return self.block_means(image)[-1]

    def block_means(self, x: Float[Array, "B H W 3"]) -> list[Float[Array, "B C"]]:
        """Return the mean over all positions of the output of every block."""
        means, layers = [], iter(self.layers)
        for block in self.blocks:
            x = jnp.concatenate([_run_branch(branch, layers, x) for branch in block], axis=-1)
            means.append(jnp.mean(x, axis=(1, 2)))
        return means


def prepare(picture: Num[Array, "B H W 3"], preparation: Preparation) -> Float[Array, "B 299 299 3"]:
    """Return pictures with values from 0 to 255 as the network takes them; nothing is rounded on the way.

    Args:
        picture: Pictures of any size.
        preparation: The library to follow; they differ in the resize, and pytorch-fid in the range too.
    """
    x = bilinear_resize(picture.astype(jnp.float32), SIDE, SIDE, PLACEMENTS[preparation])
    return x / 127.5 - 1 if preparation == "pytorch-fid" else (x - 128) / 128


def _run_branch(branch: Branch, layers: Iterator[NormedConv], x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
    """Compute a branch, and take its layers from those of the network."""
    if branch.pool:
        x = _pool(x, branch.pool)
    own = [next(layers) for _ in branch.layers]
    for layer in own[:-2] if branch.forks else own:
        x = layer(x)
    return jnp.concatenate([layer(x) for layer in own[-2:]], axis=-1) if branch.forks else x


def _pool(x: Float[Array, "B H W C"], kind: str) -> Float[Array, "B H2 W2 C"]:
    window = (1, 3, 3, 1)
    if kind == "mean":
        # What lies outside does not count.
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME")
        number = jax.lax.reduce_window(jnp.ones_like(x[:1, :, :, :1]), 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME")
        return total / number
    step, padding = (2, "VALID") if kind == "halve" else (1, "SAME")
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, step, step, 1), padding)
