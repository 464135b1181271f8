"""JPEG and WebP by Pillow, at no more bytes than a file of the codec."""

import bisect
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cod_jax.errors import UserError

# Options of Pillow that make the smallest files.
OPTIONS = {"WebP": {"method": 6}, "JPEG": {"optimize": True}}
QUALITIES = range(1, 96)
# Where even quality 1 takes too many bytes, a smaller picture is coded and enlarged again.
SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)


class Coded(NamedTuple):
    """A photograph as it comes back from a file.

    Attributes:
        codec: Name of the codec.
        pixels: What comes back.
        num_bytes: Size of the file.
        settings: With what it was coded.
    """

    codec: str
    pixels: UInt8[np.ndarray, "H W 3"]
    num_bytes: int
    settings: str


def code_within(image_uint8: UInt8[np.ndarray, "H W 3"], codec: str, max_bytes: int) -> Coded:
    """Return the picture at the largest quality of a codec whose file is not too long.

    Args:
        image_uint8: The picture.
        codec: "WebP" or "JPEG".
        max_bytes: Largest size of the file.

    Raises:
        UserError: The file is too long at the smallest scale and quality 1.
    """
    original = Image.fromarray(image_uint8)
    for scale in SCALES:
        small = original.resize([max(1, round(side * scale)) for side in original.size], Image.Resampling.LANCZOS)

        def coded(quality: int, small: Image.Image = small) -> bytes:
            file = io.BytesIO()
            small.save(file, codec, quality=quality, **OPTIONS[codec])
            return file.getvalue()

        quality = bisect.bisect_right(QUALITIES, max_bytes, key=lambda quality: len(coded(quality)))
        if quality:
            data = coded(quality)
            decoded = Image.open(io.BytesIO(data)).convert("RGB").resize(original.size, Image.Resampling.LANCZOS)
            shrunk = "" if scale == 1.0 else f", picture at {scale:.3g} of its size"
            return Coded(codec, np.asarray(decoded), len(data), f"quality {quality}{shrunk}")
    raise UserError(f"{codec} cannot code {original.width}x{original.height} pixels in {max_bytes} bytes; allow more")
