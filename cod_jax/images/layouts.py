"""Layouts of pixels: those that Pillow reads right, and what it read as 8-bit colour and alpha."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cod_jax.errors import UserError
from cod_jax.images import colour

# What Pillow calls the layout of a pixel in a file, its raw mode, by format; every other one is refused. Those of TIFF
# are in `tiff`. WebP, AVIF and GIF are not listed: their pixels have one layout each.
_KNOWN_RAW_MODES = {
    "PNG": {
        *("1", "L;2", "L;4", "L", "I;16B", "P;1", "P;2", "P;4", "P", "LA", "LA;16B"),
        *("RGB", "RGB;16B", "RGBA", "RGBA;16B"),
    },
    "JPEG": {"L", "RGB", "CMYK", "CMYK;I"},
    "MPO": {"L", "RGB", "CMYK", "CMYK;I"},
    "BMP": {
        *("1", "L", "P", "P;1", "P;4", "BGR", "BGR;15", "BGR;16"),
        *("BGRX", "XBGR", "BGXR", "ABGR", "RGBX", "RGBA", "BGRA", "BGAR"),
    },
}
_UNNAMED_LAYOUTS = {"bmp_rle", "webp", "gif", "avif"}
_OTHER_ORDER = {"B": "L", "L": "B"}
_NATIVE_ORDER = "L" if sys.byteorder == "little" else "B"
# Colours of 16 bits, with the mode under which they are read: not divided by their alpha.
_WIDE_COLOURS = {"RGB": "RGB", "RGBX": "RGBX", "RGBA": "RGBA", "RGBa": "RGBA", "CMYK": "CMYK", "LA": "LA"}
_PREMULTIPLIED = {"RGBa": 3, "La": 1}
_GREY_BITS_OF_RAW_MODE = {"1": 1, "L;2": 2, "L;4": 4}


@dataclasses.dataclass(frozen=True)
class Samples:
    """Pixels with all the bits that they have in the file.

    Attributes:
        values: Integers [H, W, C], the colours first.
        bits: The largest value is 2**bits - 1; at most 16.
        num_colours: 1 for grey, 3 for RGB, 4 for CMYK.
        is_premultiplied: Whether the colours are multiplied with alpha.
        has_alpha: Whether the first sample after the colours is alpha.
    """

    values: npt.NDArray[Any]
    bits: int
    num_colours: int
    is_premultiplied: bool = False
    has_alpha: bool = False

    def split(self, *, keep_cmyk: bool = True) -> tuple[Image.Image, npt.NDArray[Any] | None]:
        """Return colours as a picture of mode L, RGB or CMYK with 8 bits, and alpha [H, W, 1] or None.

        Args:
            keep_cmyk: Whether CMYK stays, for a profile to convert it. Otherwise it becomes RGB before it is rounded.
        """
        colours, alpha = self.values[..., : self.num_colours], None
        bits = self.bits
        if self.has_alpha:
            alpha = colour.scale_to_16_bits(self.values[..., [self.num_colours]], bits)
            if self.is_premultiplied:
                colours, bits = colour.unpremultiply(colour.scale_to_16_bits(colours, bits), alpha), 16
        num_colours = self.num_colours
        if num_colours == 4 and not keep_cmyk:
            inks = 65535 - colour.scale_to_16_bits(colours, bits).astype(np.uint32)
            colours, num_colours, bits = inks[..., :3] * inks[..., 3:] // 65535, 3, 16
        narrow = np.ascontiguousarray(colour.scale_to_8_bits(colours, bits))
        if num_colours == 1:
            return Image.fromarray(narrow[..., 0]), alpha
        height, width, _ = narrow.shape
        return Image.frombytes("RGB" if num_colours == 3 else "CMYK", (width, height), narrow.tobytes()), alpha

    def with_transparent(self, key: Any) -> "Samples":
        """Return the samples with an alpha that is 0 where the colours are those of a key."""
        opaque = (self.values != np.asarray(key)).any(axis=-1, keepdims=True)
        alpha = (opaque * (2**self.bits - 1)).astype(self.values.dtype)
        return dataclasses.replace(self, values=np.concatenate([self.values, alpha], axis=-1), has_alpha=True)


def check_layout(image: Image.Image, name: str) -> None:
    """Refuse a picture that was opened, but not loaded, if Pillow is not known to read its layout right.

    Raises:
        UserError: The layout is unknown.
    """
    known = _KNOWN_RAW_MODES.get(image.format or "")
    tiles: list[Any] = getattr(image, "tile", [])
    if known is None or not tiles or tiles[0][0] in _UNNAMED_LAYOUTS:
        return
    raw_mode = _raw_mode(image)
    if raw_mode not in known:
        raise UserError(
            f"{name}: this {image.format} file stores its pixels as {raw_mode or tiles[0][3]}, which is not read; save "
            "the picture as an ordinary PNG"
        )


def load(image: Image.Image, *, reopen: Callable[[], Image.Image] | None) -> Samples | None:
    """Load the pixels, and return them if they are colours of 16 bits, or multiplied with alpha.

    Args:
        image: An opened picture.
        reopen: Opens it a second time; None leaves the high bytes of the samples in the picture.
    """
    base, _, ending = _raw_mode(image).partition(";16")
    if base in _PREMULTIPLIED and not ending and reopen is not None:
        # Pillow would divide by alpha and round, which is off by more than one level where that is small.
        if base == "RGBa":
            _set_raw_mode(image, "RGBA")
        return Samples(np.asarray(image), 8, _PREMULTIPLIED[base], is_premultiplied=True, has_alpha=True)
    if not ending or base not in _WIDE_COLOURS or reopen is None:
        image.load()
        return None
    num_colours = {"LA": 1, "CMYK": 4}.get(base, 3)
    if base == "LA":
        _set_raw_mode(image, "RGBA")  # all four bytes of a pixel
        pixel = np.asarray(image).astype(np.uint16)
        return Samples(pixel[..., ::2] * 256 + pixel[..., 1::2], 16, num_colours, has_alpha=True)
    # Pillow keeps the high bytes. With the bytes in the other order it keeps the low ones.
    order = _NATIVE_ORDER if ending == "N" else ending
    with reopen() as low_image:
        _set_raw_mode(low_image, f"{_WIDE_COLOURS[base]};16{_OTHER_ORDER[order]}")
        low = np.asarray(low_image).astype(np.uint16)
    _set_raw_mode(image, f"{_WIDE_COLOURS[base]};16{order}")
    values = np.asarray(image).astype(np.uint16) * 256 + low
    return Samples(values, 16, num_colours, is_premultiplied=base == "RGBa", has_alpha=base in ("RGBA", "RGBa"))


def wide_grey(image: Image.Image, name: str, bits: int = 16, *, is_inverted: bool = False) -> Samples:
    """Return the samples of a loaded picture of mode I or I;16.

    Args:
        image: The picture.
        name: Its name in messages.
        bits: Bits of a sample in the file.
        is_inverted: Whether white is 0.

    Raises:
        UserError: Values are negative or above 65535.
    """
    grey = np.asarray(image)[..., None]
    if grey.min() < 0 or grey.max() > 65535:
        raise UserError(
            f"{name}: expected grey values from 0 to 65535, got {grey.min()} to {grey.max()}; "
            "save the picture with 16 bits"
        )
    grey = grey.astype(np.uint16)
    return Samples(2**bits - 1 - grey if is_inverted else grey, bits, 1)


def split(image: Image.Image, grey_bits: int = 8) -> tuple[Image.Image, npt.NDArray[Any] | None]:
    """Return a loaded picture with 8 bits in mode L, RGB or CMYK, and its alpha [H, W, 1] or None.

    Args:
        image: The picture.
        grey_bits: Bits of a grey sample in the file; Pillow leaves the key of transparent pixels in these.
    """
    key = image.info.get("transparency")
    if grey_bits < 8 and isinstance(key, int):
        grey = np.asarray(image.convert("L"))[..., None]
        key = min(key, 2**grey_bits - 1) * 255 // (2**grey_bits - 1)
        return Samples(grey, 8, 1).with_transparent(key).split()
    alpha = None
    if image.has_transparency_data or image.mode in ("RGBa", "La"):
        is_bmp = image.format == "BMP"
        image = image.convert("LA" if image.mode in ("La", "LA") else "RGBA")
        alpha = np.asarray(image.getchannel("A"))[..., None]
        if is_bmp and not alpha.any():
            alpha = None  # the field is there and unused
    if image.mode in ("1", "L", "LA"):
        return image.convert("L"), alpha
    if image.mode == "LAB":
        return colour.lab_to_rgb(image), alpha
    return image if image.mode == "CMYK" else image.convert("RGB"), alpha


def grey_bits(image: Image.Image) -> int:
    """Return the bits of a grey sample of an opened picture that is not loaded; 8 where they are not fewer."""
    return _GREY_BITS_OF_RAW_MODE.get(_raw_mode(image), 8)


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the layout of a pixel in the file, or "" if parts of the file differ."""
    arguments: list[Any] = [tile[3] for tile in getattr(image, "tile", [])]
    raw_modes: set[Any] = {argument[0] if isinstance(argument, tuple) else argument for argument in arguments}
    raw_mode = raw_modes.pop() if len(raw_modes) == 1 else ""
    return raw_mode if isinstance(raw_mode, str) else ""  # for GIF it is a number


def _set_raw_mode(image: Any, raw_mode: str) -> None:
    for index, tile in enumerate(image.tile):
        arguments: Any = tile.args
        new: Any = (raw_mode, *arguments[1:]) if isinstance(arguments, tuple) else raw_mode
        image.tile[index] = tile._replace(args=new)
