"""Other codecs, on the same pictures: JPEG, WebP and AVIF by Pillow, JPEG XL by imagecodecs.

Rates as small as those of neural codecs are below what these codecs are made for. There, people code a smaller picture
and enlarge it again, so every codec is also measured at half and at a quarter of the resolution.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image, features

from cod_jax.errors import UserError, reason_of
from cod_jax.evaluation.coders import Coder, Pixels

Number = int | float
SCALES = (1.0, 0.5, 0.25)
_SCALE_NAMES = {1.0: "", 0.5: "half", 0.25: "quarter"}


@dataclasses.dataclass(frozen=True)
class Format:
    """A codec and the settings that are swept.

    Attributes:
        title: Its name for people.
        suffix: Of its files.
        setting: What its settings are called, "quality" or "distance".
        values: The settings at full resolution, from the smallest files to the largest.
        small_values: Those at half and at a quarter of the resolution.
        encode: Function of pixels and a setting that returns the file.
        decode: Function of the file that returns pixels.
        packages: The distributions that do the work.
        options: How it is called, for the reader of a report.
    """

    title: str
    suffix: str
    setting: str
    values: tuple[Number, ...]
    small_values: tuple[Number, ...]
    encode: Callable[[Pixels, Number], bytes]
    decode: Callable[[bytes], Pixels]
    packages: tuple[str, ...]
    options: str


def _by_pillow(name: str, **options: Any) -> Callable[[Pixels, Number], bytes]:
    def encode(pixels: Pixels, quality: Number) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, name, quality=int(quality), **options)
        return file.getvalue()

    return encode


def _decode_by_pillow(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _encode_mozjpeg(pixels: Pixels, quality: Number) -> bytes:
    import mozjpeg_lossless_optimization

    return mozjpeg_lossless_optimization.optimize(_by_pillow("JPEG")(pixels, quality))


def _encode_jxl(pixels: Pixels, distance: Number) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpegxl_encode(np.ascontiguousarray(pixels), distance=distance, effort=7, numthreads=1))


def _decode_jxl(data: bytes) -> Pixels:
    import imagecodecs

    return imagecodecs.jpegxl_decode(data, numthreads=1)


FORMATS = {
    "jpeg": Format(
        title="JPEG",
        suffix=".jpg",
        setting="quality",
        values=(1, 5, 10, 15, 20, 30, 45, 60),
        small_values=(5, 10, 20, 40, 70),
        encode=_by_pillow("JPEG", optimize=True),
        decode=_decode_by_pillow,
        packages=("pillow",),
        options="Pillow, optimize=True, chroma at half resolution",
    ),
    "mozjpeg": Format(
        title="JPEG with MozJPEG",
        suffix=".jpg",
        setting="quality",
        values=(1, 5, 10, 15, 20, 30, 45, 60),
        small_values=(5, 10, 20, 40, 70),
        encode=_encode_mozjpeg,
        decode=_decode_by_pillow,
        packages=("pillow", "mozjpeg-lossless-optimization"),
        options="the pictures of Pillow's JPEG in smaller files, whose scans and codes MozJPEG has chosen",
    ),
    "webp": Format(
        title="WebP",
        suffix=".webp",
        setting="quality",
        values=(0, 2, 5, 10, 20, 35, 50),
        small_values=(0, 5, 15, 40, 75),
        encode=_by_pillow("WEBP", method=6),
        decode=_decode_by_pillow,
        packages=("pillow",),
        options="Pillow, method=6",
    ),
    "avif": Format(
        title="AVIF",
        suffix=".avif",
        setting="quality",
        values=(0, 10, 20, 30, 40, 50),
        small_values=(5, 20, 35, 50, 70),
        encode=_by_pillow("AVIF", speed=6, max_threads=1),
        decode=_decode_by_pillow,
        packages=("pillow",),
        options="Pillow, speed=6, chroma at half resolution, one thread",
    ),
    "jxl": Format(
        title="JPEG XL",
        suffix=".jxl",
        setting="distance",
        values=(25, 18, 12, 9, 6.5, 4.5, 3),
        small_values=(15, 8, 4, 2, 1),
        encode=_encode_jxl,
        decode=_decode_jxl,
        packages=("imagecodecs",),
        options="imagecodecs, effort=7, one thread",
    ),
}
# What Pillow, MozJPEG and imagecodecs raise, for example where a side is longer than a format can say.
_ERRORS = (ValueError, OSError, RuntimeError, Image.DecompressionBombError)
_MODULES = {"mozjpeg": "mozjpeg_lossless_optimization", "jxl": "imagecodecs"}


def missing(name: str) -> str | None:
    """Return why a codec cannot be measured here, None if it can.

    Raises:
        UserError: The name is unknown.
    """
    if name not in FORMATS:
        raise UserError(f"expected a baseline among {', '.join(FORMATS)}, got {name!r}")
    if name == "avif" and not features.check("avif"):
        return "this Pillow was built without AVIF; install a wheel of version 11.3 or later"
    if name in _MODULES and importlib.util.find_spec(_MODULES[name]) is None:
        return f"{FORMATS[name].packages[-1]} is not installed; pip install 'cod_jax[eval]'"
    return None


@dataclasses.dataclass(frozen=True)
class Baseline(Coder):
    """A codec at one resolution.

    Attributes:
        format: Its key in `FORMATS`.
        scale: Width and height of the picture that is coded, relative to the original's.
    """

    format: str
    scale: float = 1.0

    @property
    def name(self) -> str:
        """A name for folders, such as "jpeg" or "jpeg-half"."""
        return "-".join(filter(None, (self.format, _SCALE_NAMES[self.scale])))

    @property
    def title(self) -> str:
        """A name for people."""
        scale = {1.0: "", 0.5: ", half resolution", 0.25: ", quarter resolution"}[self.scale]
        return FORMATS[self.format].title + scale

    @property
    def suffix(self) -> str:
        """The suffix of its files."""
        return FORMATS[self.format].suffix

    def points(self) -> list[tuple[str, dict[str, Any]]]:
        """Return label and settings of each rate, the smallest first."""
        format = FORMATS[self.format]
        values = format.values if self.scale == 1 else format.small_values
        return [(f"{value:g}", {format.setting: value, "scale": self.scale}) for value in values]

    def about(self) -> dict[str, Any]:
        """Return JSON values: versions of the packages, how they are called, and the scale."""
        format = FORMATS[self.format]
        return {
            "versions": {name: importlib.metadata.version(name) for name in format.packages},
            "options": format.options,
            "scale": self.scale,
            "resampling": "none" if self.scale == 1 else "Lanczos of Pillow, both ways",
        }

    def encode(self, pixels: Pixels, settings: Mapping[str, Any], stem: str) -> bytes:
        """Return the file of a picture [H, W, 3].

        Raises:
            UserError: The codec cannot take it.
        """
        format = FORMATS[self.format]
        if self.scale != 1:
            picture = Image.fromarray(pixels)
            size = (max(1, round(picture.width * self.scale)), max(1, round(picture.height * self.scale)))
            pixels = np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
        with self._failing_one_picture("encode"):
            return format.encode(pixels, settings[format.setting])

    def decode(self, data: bytes, settings: Mapping[str, Any], stem: str, size: tuple[int, int]) -> Pixels:
        """Return the picture of a file, enlarged to its width and height.

        Raises:
            UserError: The codec cannot read it.
        """
        with self._failing_one_picture("decode"):
            pixels = FORMATS[self.format].decode(data)
        if self.scale != 1:
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        return pixels

    @contextlib.contextmanager
    def _failing_one_picture(self, verb: str) -> Iterator[None]:
        """Turn an error of the codec into one that fails this picture, so that the others are measured."""
        try:
            yield
        except _ERRORS as error:
            raise UserError(
                f"{FORMATS[self.format].title} cannot {verb} the picture ({reason_of(error)}); leave it out, or "
                f"{self.format} among --baselines"
            ) from error
