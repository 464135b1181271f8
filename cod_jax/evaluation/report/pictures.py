"""Pictures inside of a report: as exact as its size allows."""

import base64
import concurrent.futures
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from cod_jax import images
from cod_jax.evaluation.metrics import psnr

Pixels = npt.NDArray[np.uint8]

# Side of the small pictures to choose from, in pixels.
THUMBNAIL = 168
# What Pillow raises, for example where a side is longer than a format can say.
_ERRORS = (ValueError, OSError, RuntimeError)
# Of so many pictures one is encoded to find out how large all become.
SAMPLED = 7


class Encoding(NamedTuple):
    """A way to store pictures.

    Attributes:
        title: Name for people.
        image_format: Pillow's name of the format.
        options: Options of Pillow.
    """

    title: str
    image_format: str
    options: dict[str, Any]


class Stored(NamedTuple):
    """Pictures as texts that follow `data:` in an address.

    Attributes:
        addresses: One per picture, such as "image/avif;base64,AAAA".
        title: How they were encoded.
        psnr_min: Smallest PSNR in dB between a picture and its stored form; None where all are exact.
        psnr_mean: The mean of it.
    """

    addresses: list[str]
    title: str
    psnr_min: float | None
    psnr_mean: float | None


def encodings() -> list[Encoding]:
    """Return the ways to store pictures, the most exact first. All keep colours at full resolution."""
    lossless = Encoding("lossless WebP", "WEBP", {"lossless": True, "quality": 30, "method": 2})
    if features.check("avif"):
        options = {"subsampling": "4:4:4", "speed": 8, "max_threads": 1}
        lossy = [Encoding(f"AVIF, quality {q}", "AVIF", {"quality": q, **options}) for q in (95, 90, 85, 78, 70, 60)]
    else:
        options = {"subsampling": 0, "optimize": True}
        lossy = [Encoding(f"JPEG, quality {q}", "JPEG", {"quality": q, **options}) for q in (95, 90, 85, 78, 70)]
    return [lossless, *lossy]


def thumbnail(pixels: Pixels) -> str:
    """Return a small picture as the text that follows `data:` in an address."""
    small = Image.fromarray(pixels)
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return _address(images.encode(np.asarray(small), "JPEG", quality=82), "JPEG")


def store(sources: Sequence[Callable[[], Pixels]], max_bytes: int) -> Stored:
    """Encode pictures so that all together fit.

    The most exact encoding is taken whose result fits, as a sample predicts. If the least exact is too long as well,
    it is taken all the same. A picture that an encoding cannot take, such as WebP sides above 16383 pixels, is stored
    as PNG.

    Args:
        sources: Functions that read one picture each.
        max_bytes: Largest length of all addresses together.

    Raises:
        UserError: A picture cannot be read.
        OSError: The same.
    """
    sample = [source() for source in sources[:: SAMPLED if len(sources) > SAMPLED else 1]]
    factor = 4 / 3 * len(sources) / max(1, len(sample))
    ways = encodings()
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        while True:
            way = ways.pop(0)
            encode = functools.partial(_encode, way=way)
            if ways and factor * sum(len(data) for data, _ in pool.map(encode, sample)) > max_bytes:
                continue
            compare = functools.partial(_read_and_encode, way=way)
            done = list(pool.map(compare, sources))
            if not ways or sum(len(address) for address, _, _ in done) <= max_bytes:
                break
    finite = [loss for _, loss, _ in done if math.isfinite(loss)]
    return Stored(
        [address for address, _, _ in done],
        " and ".join([way.title] + (["PNG"] if any(image_format == "PNG" for *_, image_format in done) else [])),
        min(finite) if finite else None,
        sum(finite) / len(finite) if finite else None,
    )


def _encode(pixels: Pixels, way: Encoding) -> tuple[bytes, str]:
    """Return a file and its format, which is PNG where the wanted one cannot hold the picture."""
    try:
        return images.encode(pixels, way.image_format, **way.options), way.image_format
    except _ERRORS:
        return images.encode(pixels, "PNG"), "PNG"


def _read_and_encode(source: Callable[[], Pixels], way: Encoding) -> tuple[str, float, str]:
    """Return a picture as an address, the PSNR that is left of it, and the format."""
    pixels = source()
    data, image_format = _encode(pixels, way)
    exact = way.options.get("lossless") or image_format == "PNG"
    loss = math.inf if exact else psnr(pixels, images.to_uint8_rgb(data))
    return _address(data, image_format), loss, image_format


def _address(data: bytes, image_format: str) -> str:
    return f"image/{image_format.lower()};base64,{base64.b64encode(data).decode()}"
