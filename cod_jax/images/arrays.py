"""Value ranges and padding of pictures in arrays."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np

from cod_jax.errors import UserError

if TYPE_CHECKING:
    import jax

Array = TypeVar("Array", np.ndarray, "jax.Array")


def is_array(value: Any) -> "TypeGuard[np.ndarray | jax.Array]":
    """Return whether something is an array of numpy or JAX."""
    jax = sys.modules.get("jax")  # whoever has an array of JAX has imported it
    return isinstance(value, np.ndarray) or (jax is not None and isinstance(value, jax.Array))


def uint8_to_unit(image_uint8: Array) -> Array:
    """Convert uint8 pixels to float32 in [0, 1], any shape; works under jit.

    Raises:
        UserError: The pixels are not uint8.
    """
    if image_uint8.dtype != np.uint8:
        raise UserError(f"expected image_uint8 of dtype uint8, got {image_uint8.dtype}")
    return image_uint8.astype(np.float32) / 255


def unit_to_signed(image01: Array) -> Array:
    """Map [0, 1] to [-1, 1], any shape."""
    return 2 * image01 - 1


def signed_to_uint8(image: Array) -> Array:
    """Round pixels of [-1, 1] to uint8, any shape; values outside are clipped.

    Computes floor(clip((x + 1) * 127.5 + 0.5, 0, 255)) in float32.
    """
    return ((image.astype(np.float32) + 1) * 127.5 + 0.5).clip(0, 255).astype(np.uint8)


def pad_to_multiple(image: Array, multiple: int) -> Array:
    """Repeat the last row and column until height and width are multiples of a number.

    Args:
        image: Pixels [..., H, W, C], H and W at least 1.
        multiple: Number, at least 1, of which both sides become multiples.

    Returns:
        The padded pixels, or the image itself if both sides are multiples. Cropping to [:H, :W] undoes the padding.

    Raises:
        UserError: `multiple` is below 1, or the image is empty or has fewer than three axes.
    """
    if multiple < 1:
        raise UserError(f"expected multiple to be at least 1, got {multiple}")
    if image.ndim < 3 or 0 in image.shape:
        raise UserError(f"expected an image [..., height, width, channels] without empty axes, got shape {image.shape}")
    height, width = image.shape[-3:-1]
    if not (height % multiple or width % multiple):
        return image
    padding = [(0, 0)] * (image.ndim - 3) + [(0, -height % multiple), (0, -width % multiple), (0, 0)]
    if isinstance(image, np.ndarray):
        return np.pad(image, padding, mode="edge")
    import jax.numpy as jnp

    return jnp.pad(image, padding, mode="edge")  # pyright: ignore[reportUnknownMemberType]
