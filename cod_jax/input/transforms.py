"""Square crops of a fixed size, resized with antialiasing, never enlarged."""

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Box = tuple[int, int, int]
"""Left, top and side of a square, in pixels."""


def center_box(height: int, width: int) -> Box:
    """Return the largest square, centred."""
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side


def random_box(height: int, width: int, image_size: int, min_scale: float, rng: np.random.Generator) -> Box:
    """Draw a square inside an image.

    Its area is uniform in [min_scale, 1] times that of the largest square, and its place is uniform. It stays square,
    so that nothing is distorted.

    Args:
        height: Rows of the image, at least `image_size`.
        width: Columns of the image, at least `image_size`.
        image_size: Smallest side that is drawn. Crops are not enlarged.
        min_scale: Smallest area as a share of the largest square, in (0, 1].
        rng: Source of randomness; three numbers are drawn.
    """
    short_edge = min(height, width)
    side = round(short_edge * math.sqrt(rng.uniform(min_scale, 1)))
    side = min(max(side, image_size), short_edge)
    return random_place(height, width, side, rng)


def random_place(height: int, width: int, side: int, rng: np.random.Generator) -> Box:
    """Draw the place of a square of a given side; two numbers are drawn."""
    left = int(rng.integers(width - side + 1))
    top = int(rng.integers(height - side + 1))
    return left, top, side


def crop_and_resize(
    image_uint8: UInt8[np.ndarray, "height width 3"], box: Box, image_size: int
) -> UInt8[np.ndarray, "image_size image_size 3"]:
    """Cut out a square and resize it with an antialiased bicubic filter."""
    left, top, side = box
    square = image_uint8[top : top + side, left : left + side]
    if side == image_size:
        return np.ascontiguousarray(square)
    resized = Image.fromarray(square).resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.array(resized)


def resize_short_edge(image_uint8: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Shrink an image with an antialiased Lanczos filter until its shorter side has a given length.

    Args:
        image_uint8: Pixels [H, W, 3].
        size: New length of the shorter side, at most the present one.

    Returns:
        The smaller image. Its longer side is rounded to a whole number of pixels.
    """
    height, width = image_uint8.shape[:2]
    short_edge = min(height, width)
    if short_edge == size:
        return image_uint8
    new_size = (round(width * size / short_edge), round(height * size / short_edge))
    return np.array(Image.fromarray(image_uint8).resize(new_size, Image.Resampling.LANCZOS))
