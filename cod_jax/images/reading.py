"""Pictures of every kind as 8-bit sRGB."""

import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImagePalette, UnidentifiedImageError, features

from cod_jax import files
from cod_jax.coding.sizes import LARGEST_LIMIT as MAX_PIXELS
from cod_jax.errors import UserError
from cod_jax.files import BinaryFile
from cod_jax.images import colour, kinds, layouts, png, tiff
from cod_jax.images.pillow_warnings import collected_warnings

if TYPE_CHECKING:
    import jax

# Pillow knows many more formats, some of which start other programs (EPS starts Ghostscript). "JPEG" reads MPO files as
# well. `files` has the formats' names for messages, and their suffixes.
_HAS_AVIF = "avif" in features.modules and features.check_module("avif")  # from 11.3 on, if it was built so
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", *(["AVIF"] if _HAS_AVIF else []))

ImageSource = Union[str, os.PathLike[str], bytes, Image.Image, np.ndarray, "jax.Array"]

# Errors that Pillow's readers raise on damaged data.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOUR_MAP_TAG = 320


SizeCheck = Callable[..., None]
"""Called as check(height=H, width=W); raises a UserError if a picture is too large."""


def to_uint8_rgb(
    source: ImageSource,
    name: str = "",
    *,
    warn: bool = True,
    short_edge: int | None = None,
    check_size: SizeCheck | None = None,
) -> npt.NDArray[np.uint8]:
    """Read a picture of any kind as 8-bit sRGB.

    EXIF orientation is applied. Grey and palette pictures become RGB, and samples of other depths are scaled to 8 bits
    and rounded. CMYK and embedded colour profiles are converted to sRGB. A profile that differs from sRGB by at most
    1/255 leaves the pixels as they are. Transparency is composited on white. Layouts that are not known to be read
    right are refused.

    Args:
        source: Path, encoded bytes, Pillow image, or array. Files are JPEG, PNG, WebP, TIFF, BMP, GIF or, where Pillow
            can, AVIF. Arrays are uint8 or uint16 with shape [H, W] or [H, W, C]; C is 1 (grey), 2 (grey, alpha), 3
            (RGB) or 4 (RGB, alpha). A Pillow image that was made from another one, as by `convert` or `rotate`, is
            taken as it lies: its orientation tag may have been seen to.
        name: Name of the picture in messages; the path, or "image", when empty.
        warn: Whether transparency, unusable colour profiles and what Pillow says about the file give a warning.
        short_edge: Number of pixels that the shorter side needs. A larger JPEG file may then be decoded at 1/2, 1/4 or
            1/8 of its size, which is several times faster. None decodes at full size.
        check_size: Called with the size before the pixels are decoded.

    Returns:
        The pixels [H, W, 3].

    Raises:
        UserError: The picture is broken, truncated, animated, too large or of an unread kind, or the array has another
            shape or dtype.
        OSError: The path cannot be opened.
    """
    notes: list[str] = []
    check = check_size or _any_size
    shown = name or (os.fspath(source) if isinstance(source, (str, os.PathLike)) else "image")
    with collected_warnings() as said:
        if isinstance(source, Image.Image):
            pixels = _from_pillow(source, shown, notes, check)
        elif isinstance(source, bytes):
            pixels = _from_file(io.BytesIO(source), shown, notes, check, short_edge)
        elif not isinstance(source, (str, os.PathLike)):
            pixels = _from_array(np.asarray(source), shown, notes, check)
        else:
            with files.open_regular(source) as file:
                pixels = _from_file(file, shown, notes, check, short_edge)
    if warn:
        for note in notes:
            warnings.warn(f"{shown}: {note}", stacklevel=2)
        for message, category in said.items():
            warnings.warn(f"{shown}: {message}", category, stacklevel=2)
    return pixels


def _any_size(*, height: int, width: int) -> None:
    pass


def _check_size(check: SizeCheck, name: str, *, height: int, width: int) -> None:
    if height * width == 0:
        raise UserError(f"{name}: the picture has no pixels; each side must be at least 1")
    try:
        check(height=height, width=width)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if height * width > MAX_PIXELS:
        raise UserError(f"{name}: {width}x{height} is more than {MAX_PIXELS} pixels; make the picture smaller")


def _from_array(array: np.ndarray, name: str, notes: list[str], check: SizeCheck) -> np.ndarray:
    if array.dtype.name not in ("uint8", "uint16"):
        raise UserError(f"{name}: expected pixels of dtype uint8 or uint16, 0 for black, got {array.dtype}")
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4):
        raise UserError(f"{name}: expected shape [height, width] or [height, width, 1 to 4], got {array.shape}")
    if 0 in pixels.shape:
        raise UserError(f"{name}: an array of shape {array.shape} holds no pixels; each side must be at least 1")
    _check_size(check, name, height=pixels.shape[0], width=pixels.shape[1])
    alpha = None
    if pixels.shape[-1] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1:]
    pixels = colour.scale_to_8_bits(pixels, 8 * pixels.dtype.itemsize)
    if alpha is not None:
        pixels = colour.composite_on_white(pixels, alpha, notes)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _from_file(file: BinaryFile, name: str, notes: list[str], check: SizeCheck, short_edge: int | None) -> np.ndarray:
    file.seek(0)
    start = file.read(16)
    if not start:
        raise UserError(f"{name}: the file is empty; replace or remove it")
    if tiff.is_tiff(start):
        return _from_tiff(file, name, notes, check)
    file.seek(0)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise _unread(file, name) from None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more than {MAX_PIXELS} pixels; make the picture smaller") from None
    except _DECODE_ERRORS as error:
        if start.startswith(png.SIGNATURE) and isinstance(error, ValueError):
            return _from_png_without_texts(file, name, notes, check, error)
        raise _damaged(name, error) from error
    with image:
        if short_edge and short_edge < min(image.size):
            scale = short_edge / min(image.size)
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        try:
            return _from_pillow(image, name, notes, check, file=file)
        except UserError as error:
            # Texts after the pixels are read together with them.
            cause = error.__cause__
            if image.format != "PNG" or not isinstance(cause, ValueError) or isinstance(cause, UserError):
                raise
            return _from_png_without_texts(file, name, notes, check, cause)


def _from_png_without_texts(
    file: BinaryFile, name: str, notes: list[str], check: SizeCheck, error: Exception
) -> np.ndarray:
    """Read a PNG file that Pillow refused, which may be for the size of its texts or its profile alone.

    Raises:
        UserError: There is another reason.
    """
    file.seek(0)
    data = file.read()
    rest, profile = png.split_metadata(data)
    if len(rest) == len(data):
        raise _damaged(name, error) from error
    rest_file = io.BytesIO(rest)
    try:
        image = Image.open(rest_file, formats=("PNG",))
    except _DECODE_ERRORS as again:
        raise _damaged(name, again) from again
    with image:
        if profile is not None:
            image.info["icc_profile"] = profile or b"unusable"
        return _from_pillow(image, name, notes, check, file=rest_file)


def _from_tiff(file: BinaryFile, name: str, notes: list[str], check: SizeCheck) -> np.ndarray:
    try:
        layout = tiff.read_layout(file)
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    if layout is None:
        raise _several_frames(name)
    _check_size(check, name, height=layout.height, width=layout.width)
    image = _open_tiff(file, name) if tiff.pillow_is_right(layout) else None
    if image is not None:
        with image:
            return _from_pillow(image, name, notes, check, file=file, layout=layout)
    try:
        values, bits, profile = tiff.read_samples(file, layout, name)
    except UserError:
        raise
    except Exception as error:
        raise _damaged(name, error) from error
    samples = layouts.Samples(
        values,
        bits,
        layout.num_resolved_colours,
        is_premultiplied=layout.is_premultiplied,
        has_alpha=layout.extra[:1] in ((1,), (2,)),
    )
    return _finish(samples.split(keep_cmyk=bool(profile)), profile, layout.orientation, notes)


def _open_tiff(file: BinaryFile, name: str) -> Image.Image | None:
    """Open a TIFF file with Pillow; None if this version does not know its layout."""
    file.seek(0)
    try:
        image = Image.open(file, formats=("TIFF",))
        _mend_palette(image)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more than {MAX_PIXELS} pixels; make the picture smaller") from None
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    return image


def _from_pillow(
    image: Image.Image,
    name: str,
    notes: list[str],
    check: SizeCheck,
    *,
    file: BinaryFile | None = None,
    layout: tiff.Layout | None = None,
) -> np.ndarray:
    """Convert a Pillow image.

    Args:
        image: The picture.
        name: Its name in messages.
        notes: Receives what is worth a warning.
        check: Refuses pictures by their size.
        file: The file that it was opened from, which is needed for colour of more than 8 bits.
        layout: The layout of a TIFF file.
    """
    width, height = image.size
    _check_size(check, name, height=height, width=width)
    if file is None and image.format in ("TIFF", "PNG") and getattr(image, "tile", None):
        opened: Any = image
        if opened.fp is not None and opened.tell() == 0:
            return _from_file(opened.fp, name, notes, check, None)  # as if its path had been given
    if layout is None and hasattr(image, "tag_v2"):
        layout = _layout_of_loaded(image, name)
    samples = None

    def reopen() -> Image.Image:
        assert file is not None  # noqa: S101
        file.seek(0)
        return Image.open(file, formats=FORMATS)

    try:
        # Phones store a second picture (stereo, gain map) in MPO files: the first frame is the photograph.
        animated = getattr(image, "is_animated", False) and image.format != "MPO" and (layout is None or file is None)
        grey_bits = layouts.grey_bits(image)
        if not animated:
            layouts.check_layout(image, name)
            samples = layouts.load(image, reopen=reopen if file else None)
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more than {MAX_PIXELS} pixels; make the picture smaller") from None
    except UserError:
        raise
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    if animated:
        raise _several_frames(name)

    profile = image.info.get("icc_profile")
    if file is not None and not profile and image.format in ("PNG", "AVIF"):
        curve, is_srgb = kinds.colour_space(file)
        if curve:
            raise UserError(
                f"{name}: expected a picture for ordinary displays, got one of high dynamic range ({curve}); "
                "convert it to sRGB"
            )
        if not is_srgb:
            notes.append("its colours are not those of sRGB, and were read as if they were; convert it to sRGB")

    key = image.info.get("transparency")
    if image.mode == "F":
        raise UserError(f"{name}: expected 8 or 16 bits per channel, got floating-point pixels; convert the picture")
    if image.mode.startswith("I"):
        bits = max(layout.bits) if layout else 16
        samples = layouts.wide_grey(image, name, bits, is_inverted=layout is not None and layout.is_inverted)
    if samples is None:
        parts = layouts.split(image, grey_bits)
    else:
        samples = samples if key is None else samples.with_transparent(key)
        parts = samples.split(keep_cmyk=bool(profile))
    return _finish(parts, profile if image.mode != "LAB" else None, _orientation(image, notes), notes)


def _finish(
    parts: tuple[Image.Image, npt.NDArray[Any] | None], profile: bytes | None, orientation: int, notes: list[str]
) -> np.ndarray:
    image, alpha = parts
    pixels = np.array(colour.to_srgb(image, profile, notes))
    if alpha is not None:
        pixels = colour.composite_on_white(pixels, alpha, notes)
    method = _TRANSPOSE_OF_ORIENTATION.get(orientation)
    return pixels if method is None else np.array(Image.fromarray(pixels).transpose(method))


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """Return how to turn a picture, as in EXIF; 1 leaves it as it is."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODE_ERRORS:
        # The pixels may be good although the metadata are damaged: leave them as they are.
        return 1
    if orientation in _TRANSPOSE_OF_ORIENTATION and not isinstance(image, ImageFile.ImageFile):
        # Pillow keeps the tag when the pixels are changed, so nobody knows whether it still holds.
        notes.append(
            "the picture was made from another in memory, so its orientation tag was not applied; use "
            "PIL.ImageOps.exif_transpose on the opened one first"
        )
        return 1
    return orientation


def _layout_of_loaded(image: Any, name: str) -> tiff.Layout:
    """Return the layout of the TIFF file that a loaded picture came from.

    Raises:
        UserError: Pillow is not known to read the layout right.
    """
    layout = tiff.layout_of_tags(image.tag_v2)
    if not tiff.pillow_is_right(layout):
        raise UserError(f"{name}: Pillow is not known to read a TIFF file of {layout} right; give the path instead")
    return layout


def _mend_palette(image: Any) -> None:
    """Read a palette of 8 bits, which some programs write where 16 are expected, as such."""
    colours = image.tag_v2.get(_COLOUR_MAP_TAG, ()) if image.mode in ("P", "PA") else ()
    if colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _several_frames(name: str) -> UserError:
    return UserError(f"{name}: the picture has several frames; save one of them as a still picture")


def _unread(file: BinaryFile, name: str) -> UserError:
    file.seek(0)
    kind = kinds.name_of(file.read(2**16))
    if kind is None:
        return UserError(f"{name}: not an image in a known format; give a {files.IMAGE_FORMATS} file")
    return UserError(
        f"{name}: expected an intact {files.IMAGE_FORMATS} file of a common kind, got one that begins as {kind}; "
        "replace it, or save the picture as PNG"
    )


def _damaged(name: str, error: BaseException) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{name}: the picture cannot be read ({reason}); replace or remove the file")
