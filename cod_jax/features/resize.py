"""The resizes in front of the published networks, as one small matrix per direction."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Keys 1981 leaves this constant free. PyTorch takes -0.75, `jax.image.resize` -0.5.
CUBIC_A = -0.75
Placement = Literal["corners", "centers", "antialiased"]


def bicubic_resize(
    x: Float[Array, "B H W C"], height: int, width: int, *, extent_offset: float = 0.0
) -> Float[Array, "B H2 W2 C"]:
    """Resize [B, H, W, C] to [B, height, width, C] by the cubic kernel with a = -0.75, in float32.

    No anti-aliasing; border pixels are repeated; values may overshoot and are not clipped. Output pixel i lies at
    (i + 0.5) * size / (new_size + extent_offset) - 0.5 of the input.

    Args:
        x: Any range.
        height: New number of rows.
        width: New number of columns.
        extent_offset: Added to both new sizes where positions are computed; 0 covers the whole input.
    """
    rows = _cubic_matrix(x.shape[1], height, extent_offset)
    return _multiply(x, rows, _cubic_matrix(x.shape[2], width, extent_offset))


def bilinear_resize(
    x: Float[Array, "B H W C"], height: int, width: int, placement: Placement
) -> Float[Array, "B H2 W2 C"]:
    """Resize [B, H, W, C] to [B, height, width, C] by linear interpolation, in float32.

    Args:
        x: Any range.
        height: New number of rows.
        width: New number of columns.
        placement: "centers" takes output pixel i at (i + 0.5) * size / new_size - 0.5 of the input; "antialiased" does
            too, and averages over a wider triangle where the picture is made smaller; "corners" takes it at
            i * size / new_size, as TensorFlow 1 did. Border pixels are repeated.
    """
    rows = _linear_matrix(x.shape[1], height, placement)
    return _multiply(x, rows, _linear_matrix(x.shape[2], width, placement))


def _multiply(x: Float[Array, "B H W C"], rows: np.ndarray, columns: np.ndarray) -> Float[Array, "B H2 W2 C"]:
    """Multiply both directions of an image by the weights [new_size, size] of each."""
    # Products in bfloat16 or TF32, the default of accelerators, would err by more than the choice of kernel changes.
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    across = product("ih,bhwc->biwc", jnp.asarray(rows), x.astype(jnp.float32))
    return product("jw,bhwc->bhjc", jnp.asarray(columns), across)


@functools.lru_cache(maxsize=64)
def _cubic_matrix(size: int, new_size: int, extent_offset: float) -> np.ndarray:
    positions = (np.arange(new_size) + 0.5) * (size / (new_size + extent_offset)) - 0.5
    first = np.floor(positions).astype(np.int64)
    matrix = np.zeros((new_size, size))
    for tap in (-1, 0, 1, 2):
        weights = _cubic(np.abs(positions - first - tap))
        np.add.at(matrix, (np.arange(new_size), np.clip(first + tap, 0, size - 1)), weights)
    return matrix.astype(np.float32)


@functools.lru_cache(maxsize=64)
def _linear_matrix(size: int, new_size: int, placement: Placement) -> np.ndarray:
    ratio = size / new_size
    if placement == "corners":
        # Positions of float32 fall on other pixels than exact ones in a few places.
        positions = (np.arange(new_size, dtype=np.float32) * np.float32(ratio)).astype(np.float64)
    else:
        positions = np.clip((np.arange(new_size) + 0.5) * ratio - 0.5, 0, size - 1)
    reach = max(ratio, 1) if placement == "antialiased" else 1
    weights = np.maximum(0, 1 - np.abs(np.arange(size)[None] - positions[:, None]) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return the kernel at distances in [0, 2] (Keys 1981, equation 4)."""
    near = ((CUBIC_A + 2) * distance - (CUBIC_A + 3)) * distance**2 + 1
    far = CUBIC_A * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)
