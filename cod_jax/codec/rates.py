"""Choose the quality level of a picture by the size of its file."""

import math
from collections.abc import Callable
from typing import Any

from cod_jax.errors import UserError


def check_bits_per_pixel(bpp: Any) -> None:
    """Refuse limits that are not positive numbers.

    Raises:
        UserError: With the limit.
    """
    if isinstance(bpp, bool) or not isinstance(bpp, int | float) or not 0 < bpp < math.inf:
        raise UserError(f"bits per pixel must be a positive number, got {bpp!r}")


def check_max_bytes(max_bytes: Any) -> None:
    """Refuse limits that are not positive whole numbers.

    Raises:
        UserError: With the limit.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise UserError(f"max_bytes must be a positive whole number, got {max_bytes!r}")


def check_one(quality: Any, bpp: Any, max_bytes: Any) -> None:
    """Refuse more than one way to choose the quality, and unusable limits.

    Raises:
        UserError: With what to leave out or to change.
    """
    given = {"quality": quality, "bpp": bpp, "max_bytes": max_bytes}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UserError(f"expected one of quality, bpp and max_bytes, got {' and '.join(named)}; keep one of them")
    if bpp is not None:
        check_bits_per_pixel(bpp)
    if max_bytes is not None:
        check_max_bytes(max_bytes)


def best_within(write: Callable[[int], bytes], num_levels: int, max_bytes: int) -> bytes:
    """Return the file of the best quality that is not too long.

    Files are taken to grow with the quality, so that a search by halves finds it.

    Args:
        write: Function from a quality level, counted from 0, to the file.
        num_levels: Quality levels of the model.
        max_bytes: Bytes of the longest file that will do.

    Raises:
        UserError: The file of the lowest quality is too long.
    """
    best, smallest = None, 0
    low, high = 0, num_levels - 1
    while low <= high:
        middle = (low + high) // 2
        data = write(middle)
        if len(data) <= max_bytes:
            best, low = data, middle + 1
        else:
            smallest, high = len(data), middle - 1
    if best is None:
        raise UserError(
            f"expected a file of at most {max_bytes} bytes, got {smallest} at the lowest quality; allow more, or make "
            "the picture smaller"
        )
    return best
