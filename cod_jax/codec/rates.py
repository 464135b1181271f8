"""Choose the quality level of a picture by the size of its file."""

import math
import numbers
from collections.abc import Callable
from typing import Any

from cod_jax.errors import UserError
from cod_jax.model_folder.decoding import is_number

# Gradient steps; many more than help.
MAX_EFFORT = 10_000
# More than any file has; larger limits are as good as none.
_MANY_BITS_PER_PIXEL = 1e6


def check_bits_per_pixel(bpp: Any) -> None:
    """Refuse limits that are not positive numbers.

    Raises:
        UserError: With the limit.
    """
    if not is_number(numbers.Real, bpp) or not 0 < bpp < math.inf:
        raise UserError(f"bits per pixel must be a positive number, got {bpp!r}")


def bytes_within(bpp: float, *, height: int, width: int) -> int:
    """Return the bytes of the longest file of a picture that has at most so many bits per pixel."""
    return int(min(float(bpp), _MANY_BITS_PER_PIXEL) * height * width / 8)


def checked_effort(effort: Any) -> int:
    """Return a number of gradient steps that can be taken.

    Raises:
        UserError: It is not a whole number from 0 to 10000.
    """
    if not is_number(numbers.Integral, effort) or not 0 <= effort <= MAX_EFFORT:
        raise UserError(f"effort must be a whole number from 0 to {MAX_EFFORT}, got {effort!r}")
    return int(effort)


def check_one(is_list: bool, **given: Any) -> None:
    """Refuse more than one way to choose the quality, and unusable limits.

    Args:
        is_list: Whether there is a list of pictures, rather than one.
        **given: The ways of `Codec.compress` by name; None is not given.

    Raises:
        UserError: With what to leave out or to change.
    """
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        names = list(given)
        raise UserError(
            f"expected one of {', '.join(names[:-1])} and {names[-1]}, got {' and '.join(named)}; keep one of them"
        )
    for name, value in named.items():
        if name == "bpp":
            check_bits_per_pixel(value)
        if name.endswith("_bytes") and (not is_number(numbers.Integral, value) or value < 1):
            raise UserError(f"{name} must be a positive whole number, got {value!r}")
    if "total_bytes" in named and not is_list:
        raise UserError("total_bytes is for a list of pictures, got a single one; use max_bytes")


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
