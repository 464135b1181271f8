"""Encoding and saving of pictures."""

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cod_jax import files


def save_png(path: str | os.PathLike[str], image_uint8: npt.NDArray[np.uint8]) -> None:
    """Write a picture [H, W, 3] as PNG; the file appears whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    files.write_bytes(path, encode(image_uint8, "PNG"))


def encode(image_uint8: npt.NDArray[np.uint8], image_format: str, **options: Any) -> bytes:
    """Encode a picture with Pillow.

    Args:
        image_uint8: Pixels [H, W, 3].
        image_format: Pillow's name of the format, for example "PNG" or "JPEG".
        **options: Options of Pillow's `save`.
    """
    buffer = io.BytesIO()
    Image.fromarray(image_uint8).save(buffer, image_format, **options)
    return buffer.getvalue()
