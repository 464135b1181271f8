"""Grids of symbols over pictures, and how large pictures may be."""

import operator
from typing import Any

from cod_jax.errors import UserError

MAX_PIXELS = 2**24
"""Largest picture taken by default, 4096x4096; 3840x2160 is half of that.

One kilobyte per pixel is 17 gigabytes at this limit. Temporary memory on a CPU in kilobytes per pixel: encoding takes
0.5 where the first convolution has stride 2 (1.3 at pitch 4) and 1.6 where it has stride 1. Decoding takes 0.1 with
CoD-Lite (0.9 at pitch 4), 0.2 to 0.7 with pixel CoD, and 3.1 with latent CoD because of its autoencoder; with guidance
it takes at least what encoding takes.
"""

LARGEST_LIMIT = 2**27
"""Size of the largest picture that is ever decoded. The limit of Pillow itself is a little higher."""

RAISE_LIMIT = "raise it with --max-pixels (in Python max_pixels where the model is loaded or registered)"

# Pixels per side of the smallest piece that a model computes, and a number that is harmless under any limit.
_CELL = 16
_ALWAYS_ALLOWED = 2**22


def checked_limit(max_pixels: Any) -> int:
    """Return a limit on the pixels of a picture.

    Raises:
        UserError: It is not a whole number from 1 to `LARGEST_LIMIT`.
    """
    try:
        limit = operator.index(max_pixels)
    except TypeError:
        limit = 0
    if not 1 <= limit <= LARGEST_LIMIT:
        raise UserError(f"expected max_pixels to be a whole number from 1 to {LARGEST_LIMIT}, got {max_pixels!r}")
    return limit


def ceil_grid(*, height: int, width: int, pitch: int) -> tuple[int, int]:
    """Return the rows and columns of symbols that cover a picture."""
    return -(-height // pitch), -(-width // pitch)


def exceeds_limit(*, height: int, width: int, pitch: int, max_pixels: int) -> bool:
    """Return whether a picture, or what a model computes for it, is more than a limit allows.

    Models compute whole cells of 16 pixels, or of a symbol where that is larger, so that a thin picture takes many
    times the work of its pixels. Twice the limit is allowed for that, and four megapixels always.
    """
    cell = max(pitch, _CELL)
    rows, columns = ceil_grid(height=height, width=width, pitch=cell)
    return height * width > max_pixels or rows * columns * cell**2 > max(2 * max_pixels, _ALWAYS_ALLOWED)


def check_grid(got: tuple[int, ...], *, height: int, width: int, pitch: int, num_channels: int) -> None:
    """Refuse symbols that do not cover a picture, by their shape.

    Raises:
        UserError: It is not [ceil(height / pitch), ceil(width / pitch), num_channels].
    """
    shape = (*ceil_grid(height=height, width=width, pitch=pitch), num_channels)
    if got != shape:
        raise UserError(f"expected symbols {shape} for {width}x{height} pixels at pitch {pitch}, got {got}")
