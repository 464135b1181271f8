"""Linear and convolution layers with float32 parameters, named axes and a chosen compute dtype."""

import functools
import itertools
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

# Glorot and Bengio 2010. The published CoD-Lite initialises every kernel this way.
xavier_uniform = nnx.initializers.xavier_uniform()
# Uniform in +-1/sqrt(fan_in), the default of the framework of the published CoD; its biases start the same way.
fan_in_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
zeros = nnx.initializers.zeros_init()
# Values around a picture: zeros, or those at its border.
Padding = Literal["zero", "edge"]
# More would make programs longer and save little.
MAX_ROW_GROUPS = 8


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """Return x (1 + scale) + shift."""
    return x * (1 + scale) + shift


def _initial_bias(uniform: bool, kernel: jax.Array, rngs: nnx.Rngs) -> jax.Array:
    """Return zeros, or values uniform in +-1/sqrt(fan_in)."""
    shape = kernel.shape[-1:]
    if not uniform:
        return jnp.zeros(shape, jnp.float32)
    limit = (kernel.size // kernel.shape[-1]) ** -0.5
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -limit, limit)


class Linear(nnx.Module):
    """Affine map of the last axis; also serves as a 1x1 convolution.

    Args:
        in_features: Size of the last axis of the input.
        out_features: Size of the last axis of the output.
        axes: Logical names of the kernel's two axes; the bias takes the second.
        dtype: Dtype of the computation; the parameters are float32.
        use_bias: Whether a bias is added.
        kernel_init: Initialiser of the kernel [in_features, out_features].
        uniform_bias: Whether biases start uniform in +-1/sqrt(in_features) instead of at zero. By default they do if
            the kernel starts with `fan_in_uniform`.
        precision: Precision of the product. The default depends on the device: for float32, GPUs use TF32 and TPUs
            bfloat16.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        axes: tuple[str, str],
        dtype: str,
        use_bias: bool = True,
        kernel_init: Initializer = xavier_uniform,
        uniform_bias: bool | None = None,
        precision: jax.lax.Precision | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.precision = dtype, precision
        uniform = kernel_init is fan_in_uniform if uniform_bias is None else uniform_bias
        kernel = kernel_init(rngs.params(), (in_features, out_features), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=axes)
        bias = nnx.Param(_initial_bias(uniform, kernel, rngs), axes=axes[1:]) if use_bias else None
        self.bias = nnx.data(bias)

    def __call__(self, x: Float[Array, "*shape _in"]) -> Float[Array, "*shape _out"]:
        """Map [..., in_features] to [..., out_features]."""
        y = jnp.dot(x.astype(self.dtype), self.kernel[...].astype(self.dtype), precision=self.precision)
        return (
            y if self.bias is None else y + jnp.expand_dims(self.bias[...].astype(self.dtype), tuple(range(y.ndim - 1)))
        )


def kernel_and_bias(linear: Linear) -> tuple[Float[Array, "in out"], Float[Array, " out"]]:
    """Return a layer's parameters, float32; a missing bias is zero."""
    kernel = linear.kernel[...]
    return kernel, jnp.zeros(kernel.shape[1:]) if linear.bias is None else linear.bias[...]


def compose(first: Linear, second: Linear) -> tuple[Float[Array, "in out"], Float[Array, " out"]]:
    """Return kernel and bias, float32, of the linear map that applies `first` and then `second`."""
    kernel, bias = kernel_and_bias(second)
    first_kernel, first_bias = kernel_and_bias(first)
    return first_kernel @ kernel, first_bias @ kernel + bias


class Conv(nnx.Module):
    """Square convolution in NHWC.

    Args:
        in_features: Input channels.
        out_features: Output channels.
        kernel_size: Side of the kernel in pixels.
        stride: Step in both directions.
        padding: Zero rows and columns as ((top, bottom), (left, right)); by default kernel_size // 2 on every side.
        dtype: Dtype of the computation; the parameters are float32.
        kernel_init: Initialiser of the kernel [kernel_size, kernel_size, in_features, out_features].
        uniform_bias: Whether biases start uniform in +-1/sqrt(fan_in) instead of at zero; see `Linear`.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: tuple[tuple[int, int], tuple[int, int]] | None = None,
        dtype: str,
        kernel_init: Initializer = xavier_uniform,
        uniform_bias: bool | None = None,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        around = (kernel_size // 2, kernel_size // 2)
        self.padding = padding or (around, around)
        self.dtype = dtype
        shape = (kernel_size, kernel_size, in_features, out_features)
        kernel = kernel_init(rngs.params(), shape, jnp.float32)
        self.kernel = nnx.Param(kernel, axes=("kernel", "kernel", "conv_in", "conv_out"))
        uniform = kernel_init is fan_in_uniform if uniform_bias is None else uniform_bias
        self.bias = nnx.Param(_initial_bias(uniform, kernel, rngs), axes=("conv_out",))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
        """Convolve [B, H, W, in_features]."""
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...].astype(self.dtype)[None, None, None]


class DepthwiseConv(nnx.Module):
    """3x3 convolution of every channel by itself.

    It is computed as nine shifted multiply-adds. On a CPU, XLA's grouped convolution is about 40 times slower; on
    accelerators the nine terms fuse into one pass over memory.

    Args:
        features: Channels.
        padding: Values around the input: "zero", or "edge" for those at its border.
        dtype: Dtype of the computation; the parameters are float32.
        kernel_init: Initialiser, called with [3, 3, 1, features], so that fans count as in a grouped convolution.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        features: int,
        *,
        padding: Padding = "zero",
        dtype: str,
        kernel_init: Initializer = xavier_uniform,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.padding = dtype, padding
        kernel = kernel_init(rngs.params(), (3, 3, 1, features), jnp.float32)
        self.kernel = nnx.Param(kernel[:, :, 0], axes=("kernel", "kernel", "mixer"))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32), axes=("mixer",))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Convolve [B, H, W, features]."""
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        return _depthwise(x.astype(self.dtype), kernel, bias, self.padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _depthwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C"], bias: Float[Array, " C"], padding: Padding
) -> Float[Array, "B H W C"]:
    """Correlate each channel with its kernel and add the bias.

    The gradients have a rule of their own. The one that XLA derives from the shifts pads and adds nine arrays, which
    takes several times as long on a CPU.
    """
    return _correlated(_padded(x, padding), kernel, bias)


def _padded(x: jax.Array, padding: Padding) -> jax.Array:
    mode = {"zero": "constant", "edge": "edge"}[padding]
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)


def _correlated(
    padded: Float[Array, "B H2 W2 C"], kernel: Float[Array, "3 3 C"], bias: Float[Array, " C"]
) -> Float[Array, "B H W C"]:
    y = bias[None, None, None]
    for row, column, shifted in _shifts(padded):
        y = y + shifted * kernel[row, column][None, None, None]
    return y


def _shifts(padded: jax.Array) -> Iterator[tuple[int, int, jax.Array]]:
    """Yield the nine parts [B, H - 2, W - 2, C] of an array, with their row and column."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    for row, column in itertools.product(range(3), range(3)):
        yield row, column, padded[:, row : row + height, column : column + width]


def _depthwise_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    padded = _padded(x, padding)
    return _correlated(padded, kernel, bias), (padded, kernel)


def _depthwise_backward(
    padding: Padding, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    padded, kernel = saved
    # What is beyond the input's border matters only where it repeats the border.
    width = 1 if padding == "zero" else 2
    around = jnp.pad(gradient, ((0, 0), (width, width), (width, width), (0, 0)))
    of_input = _correlated(around, kernel[::-1, ::-1], jnp.zeros_like(kernel[0, 0]))
    if padding == "edge":
        of_input = _onto_border(_onto_border(of_input, axis=1), axis=2)
    # Sums over all positions are float32, as those of other layers.
    gradient32 = gradient.astype(jnp.float32)
    of_kernel = _sums_of_products(padded, gradient32).astype(kernel.dtype)
    return of_input, of_kernel, jnp.sum(gradient32, axis=(0, 1, 2)).astype(kernel.dtype)


def _onto_border(x: jax.Array, axis: int) -> jax.Array:
    """Add the first and the last element along an axis to those beside them."""
    last = x.shape[axis] - 1

    def part(start: int, stop: int) -> jax.Array:
        return jax.lax.slice_in_dim(x, start, stop, axis=axis)

    if last == 2:
        return part(0, 1) + part(1, 2) + part(2, 3)
    first_two, last_two = part(0, 1) + part(1, 2), part(last - 1, last) + part(last, last + 1)
    return jnp.concatenate([first_two, part(2, last - 1), last_two], axis)


def _sums_of_products(padded: Float[Array, "B H2 W2 C"], gradient: Float[Array, "B H W C"]) -> Float[Array, "3 3 C"]:
    """Return the sums over all positions of the nine shifted inputs times the gradient.

    Groups of rows are added while they are multiplied. That leaves little for the sum over all positions, which is slow
    on a CPU: together they take a third to a fifth of the time of nine such sums.
    """
    height = gradient.shape[1]
    num_groups = max(number for number in range(1, MAX_ROW_GROUPS + 1) if height % number == 0)
    rows = height // num_groups
    starts = range(0, height, rows)
    sums = [
        sum(shifted[:, start : start + rows] * gradient[:, start : start + rows] for start in starts)
        for _, _, shifted in _shifts(padded)
    ]
    return jnp.sum(jnp.stack(sums), axis=(1, 2, 3)).reshape(3, 3, -1)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
