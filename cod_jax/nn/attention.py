"""Single-head self-attention over the positions of a feature map, whole or in windows."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float

from cod_jax.nn.layers import Linear, xavier_uniform
from cod_jax.nn.norms import GroupNorm

AttentionMode = Literal["global", "window_published", "window_masked"]

# More queries than MAX_WHOLE_QUERIES are handled in chunks, so that the attention weights never take N * M floats. The
# backward pass computes the weights of large maps again, because those of all chunks or windows together take as many.
QUERY_CHUNK = 1024
MAX_WHOLE_QUERIES = 2 * QUERY_CHUNK


def attend(
    q: Float[Array, "B N C"], k: Float[Array, "B M C"], v: Float[Array, "B M C"], mask: Bool[Array, "B M"] | None = None
) -> Float[Array, "B N C"]:
    """Return softmax attention of N queries to M keys with scale C^-1/2, in the dtype of `v`.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: Keys that take part; all by default. The attention weights are float32.
    """

    def attend_queries(queries: Array) -> Array:
        logits = jnp.einsum("bqc,bkc->bqk", queries, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        if mask is not None:
            logits = jnp.where(mask[:, None, :], logits, -jnp.inf)
        weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        # Dividing the product by the sum costs C divisions per row; dividing the weights would cost M.
        mixed = jnp.einsum("bqk,bkc->bqc", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return (mixed / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype)

    batch, positions, channels = q.shape
    if positions <= MAX_WHOLE_QUERIES:
        return attend_queries(q)
    num_chunks = -(-positions // QUERY_CHUNK)
    padded = jnp.pad(q, ((0, 0), (0, num_chunks * QUERY_CHUNK - positions), (0, 0)))
    chunks = padded.reshape(batch, num_chunks, QUERY_CHUNK, channels).swapaxes(0, 1)
    mixed = jax.lax.map(jax.checkpoint(attend_queries, prevent_cse=False), chunks).swapaxes(0, 1)
    return mixed.reshape(batch, -1, channels)[:, :positions]


def _is_known(shape: tuple[Any, ...]) -> bool:
    """Return whether all sizes are numbers and none is a symbol of `jax.export`."""
    return not any(map(export.is_symbolic_dim, shape))


def _has_fused_attention(device: Any) -> bool:
    """Return whether this is an NVIDIA GPU on which cuDNN's attention takes bfloat16: Ampere or newer."""
    is_nvidia = device.platform == "gpu" and "NVIDIA" in device.device_kind
    return is_nvidia and float(device.compute_capability) >= 8


def multi_head_attend(
    q: Float[Array, "B N H D"], k: Float[Array, "B M H D"], v: Float[Array, "B M H D"]
) -> Float[Array, "B N H D"]:
    """Return softmax attention of each head with scale D^-1/2.

    On NVIDIA GPUs, bfloat16 attention runs through JAX's fused kernel, which never stores the weights. It needs heads
    of at most 128 channels, a multiple of 8, and cannot be part of programs for all sizes (`jax.export`).
    """
    fits = q.dtype == jnp.bfloat16 and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and _is_known(q.shape)
    if fits and _has_fused_attention(jax.devices()[0]):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")

    def heads_first(x: Array) -> Array:
        return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])

    mixed = attend(heads_first(q), heads_first(k), heads_first(v))
    return mixed.reshape(q.shape[0], q.shape[2], *mixed.shape[1:]).swapaxes(1, 2)


def _num_windows(size: Any, window: int) -> Any:
    """Return the number of windows along a side, the last one padded; sizes may be symbols of `jax.export`."""
    return -(-size // window)


def _padding(x: Float[Array, "B H W C"], window: int) -> tuple[tuple[Any, Any], ...]:
    """Return the padding that completes the last windows of [B, H, W, C], as `jnp.pad` takes it."""
    # Not as a remainder: in this form JAX sees that the padded sides are multiples of the window, symbolic ones too.
    rows, columns = (_num_windows(side, window) * window - side for side in x.shape[1:3])
    return (0, 0), (0, rows), (0, columns), (0, 0)


def _to_windows(x: Float[Array, "B H W C"], window: int) -> Float[Array, "BW N C"]:
    """Repeat the last row and column up to a multiple of `window` and cut [B, H, W, C] into [B * windows, N, C]."""
    batch, _, _, channels = x.shape
    x = jnp.pad(x, _padding(x, window), mode="edge")
    x = x.reshape(batch, x.shape[1] // window, window, x.shape[2] // window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, window * window, channels)


def _from_windows(x: Float[Array, "BW N C"], height: Any, width: Any, window: int) -> Float[Array, "B H W C"]:
    """Undo `_to_windows` and drop the padding."""
    rows, columns = _num_windows(height, window), _num_windows(width, window)
    x = x.reshape(-1, rows, columns, window, window, x.shape[-1]).swapaxes(2, 3)
    return x.reshape(-1, rows * window, columns * window, x.shape[-1])[:, :height, :width]


class SelfAttention(nnx.Module):
    """Group norm, single-head attention, output projection and residual.

    Args:
        features: Channels.
        num_groups: Groups of the normalisation.
        window: Side of the windows in positions, used by the window modes only.
        dtype: Dtype of the computation.
        kernel_init: Initialiser of the kernels.
        rngs: Source of the initial values.
    """

    def __init__(
        self,
        features: int,
        num_groups: int,
        *,
        window: int,
        dtype: str,
        kernel_init: Initializer = xavier_uniform,
        rngs: nnx.Rngs,
    ):
        def linear() -> Linear:
            axes = ("conv_in", "conv_out")
            return Linear(features, features, axes=axes, dtype=dtype, kernel_init=kernel_init, rngs=rngs)

        self.window = window
        self.norm = GroupNorm(features, num_groups)
        self.q, self.k, self.v, self.out = linear(), linear(), linear(), linear()

    def __call__(self, x: Float[Array, "B H W C"], mode: AttentionMode) -> Float[Array, "B H W C"]:
        """Attend over [B, H, W, C].

        `global` attends over all positions. Both window modes cut maps that are larger than the window in either
        direction. `window_published` lets the repeated keys of the padding take part, as the released CoD-Lite does;
        `window_masked` leaves them out.
        """
        _, height, width, channels = x.shape
        normed = self.norm(x)
        q, k, v = self.q(normed), self.k(normed), self.v(normed)
        if mode == "global" or (height <= self.window and width <= self.window):
            mixed = attend(*(a.reshape(a.shape[0], -1, channels) for a in (q, k, v))).reshape(q.shape)
        else:
            mask = None
            if mode == "window_masked":
                inside = jnp.ones((x.shape[0], height, width, 1), jnp.float32)
                mask = _to_windows(jnp.pad(inside, _padding(inside, self.window)), self.window)[..., 0] > 0
            q, k, v = (_to_windows(a, self.window) for a in (q, k, v))
            mixed = _from_windows(jax.checkpoint(attend)(q, k, v, mask), height, width, self.window)
        return x + self.out(mixed)
