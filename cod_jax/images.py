"""Pictures as arrays: reading every kind as uint8 RGB, value ranges, padding, encoding and saving."""

import functools
import io
import math
import os
import struct
import sys
import warnings
import zlib
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from cod_jax import files
from cod_jax.errors import UserError

MAX_PIXELS = 2**27
"""Size of the largest picture that is decoded. The limit of Pillow itself is a little higher."""

# Pillow knows many more formats, some of which start other programs (EPS starts Ghostscript). "JPEG" reads MPO files as
# well. `files` has the formats' names for messages, and their suffixes.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")

Array = TypeVar("Array", np.ndarray, jax.Array)
ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | jax.Array

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
_OTHER_ORDER = "B" if sys.byteorder == "little" else "L"
# Pillow keeps the high bytes of 16-bit colour. Told another raw mode, it keeps the low ones.
_RAW_MODE_OF_LOW_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": f"RGB;16{_OTHER_ORDER}",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": f"RGBA;16{_OTHER_ORDER}",
    "LA;16B": "RGBA",  # all four bytes of a pixel
}
_TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_uint8_rgb(
    source: ImageSource, name: str = "", *, warn: bool = True, short_edge: int | None = None
) -> npt.NDArray[np.uint8]:
    """Read a picture of any kind as 8-bit sRGB.

    EXIF orientation is applied. Grey and palette pictures become RGB, and 16-bit values are divided by 257 and rounded.
    CMYK and embedded colour profiles are converted to sRGB. A profile that differs from sRGB by at most 1/255 leaves
    the pixels as they are. Transparency is composited on white.

    Args:
        source: Path, encoded bytes, Pillow image, or array. Files are JPEG, PNG, WebP, TIFF, BMP or GIF. Arrays are
            uint8 or uint16 with shape [H, W] or [H, W, C]; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        name: Name of the picture in messages; the path, or "image", when empty.
        warn: Whether transparency and unusable colour profiles give a `UserWarning`.
        short_edge: Number of pixels that the shorter side needs. A larger JPEG file may then be decoded at 1/2, 1/4 or
            1/8 of its size, which is several times faster. None decodes at full size.

    Returns:
        The pixels [H, W, 3].

    Raises:
        UserError: The picture is broken, truncated, animated or too large, or the array has another shape or dtype.
        OSError: The path cannot be opened.
    """
    notes: list[str] = []
    if isinstance(source, (np.ndarray, jax.Array)):
        pixels = _from_array(np.asarray(source), name or "image", notes)
    elif isinstance(source, Image.Image):
        pixels = _from_pillow(source, name or "image", notes)
    elif isinstance(source, bytes):
        pixels = _from_file(io.BytesIO(source), name or "image", notes, short_edge)
    else:
        name = name or os.fspath(source)
        with open(source, "rb") as file:
            pixels = _from_file(file, name, notes, short_edge)
    for note in notes if warn else ():
        warnings.warn(f"{name or 'image'}: {note}", stacklevel=2)
    return pixels


def uint8_to_unit(image_uint8: Array) -> Array:
    """Convert uint8 pixels to float32 in [0, 1], any shape; works under jit.

    Raises:
        UserError: The pixels are not uint8.
    """
    if image_uint8.dtype != np.uint8:
        raise UserError(f"expected image_uint8 of dtype uint8, got {image_uint8.dtype}")
    return image_uint8.astype(np.float32) / 255


def unit_to_signed(image01: Array) -> Array:
    """Map [0, 1] to [-1, 1], any shape."""
    return 2 * image01 - 1


def signed_to_uint8(image: Array) -> Array:
    """Round pixels of [-1, 1] to uint8, any shape; values outside are clipped.

    Computes floor(clip((x + 1) * 127.5 + 0.5, 0, 255)) in float32.
    """
    return ((image.astype(np.float32) + 1) * 127.5 + 0.5).clip(0, 255).astype(np.uint8)


def pad_to_multiple(image: Array, multiple: int) -> Array:
    """Repeat the last row and column until height and width are multiples of a number.

    Args:
        image: Pixels [..., H, W, C], H and W at least 1.
        multiple: Number, at least 1, of which both sides become multiples.

    Returns:
        The padded pixels, or the image itself if both sides are multiples. Cropping to [:H, :W] undoes the padding.

    Raises:
        UserError: `multiple` is below 1, or the image is empty or has fewer than three axes.
    """
    if multiple < 1:
        raise UserError(f"expected multiple to be at least 1, got {multiple}")
    if image.ndim < 3 or 0 in image.shape:
        raise UserError(f"expected an image [..., height, width, channels] without empty axes, got shape {image.shape}")
    height, width = image.shape[-3:-1]
    if not (height % multiple or width % multiple):
        return image
    padding = [(0, 0)] * (image.ndim - 3) + [(0, -height % multiple), (0, -width % multiple), (0, 0)]
    if isinstance(image, np.ndarray):
        return np.pad(image, padding, mode="edge")
    return jnp.pad(image, padding, mode="edge")  # pyright: ignore[reportUnknownMemberType]


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


def _from_array(array: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    if array.dtype.name not in ("uint8", "uint16"):
        raise UserError(f"{name}: expected pixels of dtype uint8 or uint16, 0 for black, got {array.dtype}")
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4):
        raise UserError(f"{name}: expected shape [height, width] or [height, width, 1 to 4], got {array.shape}")
    if 0 in pixels.shape:
        raise UserError(f"{name}: an array of shape {array.shape} holds no pixels; each side must be at least 1")
    if pixels.dtype == np.uint16:
        pixels = _round_to_8_bits(pixels)
    if pixels.shape[-1] in (2, 4):
        pixels = _composite_on_white(pixels[..., :-1], pixels[..., -1:], notes)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _from_file(file: io.BytesIO | io.BufferedReader, name: str, notes: list[str], short_edge: int | None) -> np.ndarray:
    if not file.read(1):
        raise UserError(f"{name}: the file is empty; replace or remove it")
    file.seek(0)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise UserError(f"{name}: not an image in a known format; give a {files.IMAGE_FORMATS} file") from None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more than {MAX_PIXELS} pixels; make the picture smaller") from None
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    with image:
        if short_edge and short_edge < min(image.size):
            scale = short_edge / min(image.size)
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        return _from_pillow(image, name, notes, file)


def _from_pillow(
    image: Image.Image, name: str, notes: list[str], file: io.BytesIO | io.BufferedReader | None = None
) -> np.ndarray:
    """Convert a Pillow image; its file is needed for colour of more than 8 bits."""
    width, height = image.size
    if width * height == 0:
        raise UserError(f"{name}: the picture has no pixels; each side must be at least 1")
    if width * height > MAX_PIXELS:
        raise UserError(f"{name}: {width}x{height} is more than {MAX_PIXELS} pixels; make the picture smaller")
    try:
        # Phones store a second picture (stereo, gain map) in MPO files: the first frame is the photograph.
        animated = getattr(image, "is_animated", False) and image.format != "MPO"
        wide = None
        if not animated:
            raw_mode = _raw_mode(image)
            image.load()
            wide = _read_16_bit_colour(image, raw_mode, file) if file and raw_mode in _RAW_MODE_OF_LOW_BYTES else None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more than {MAX_PIXELS} pixels; make the picture smaller") from None
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    if animated:
        raise UserError(f"{name}: the picture has several frames; save one of them as a still picture")

    if image.mode == "F":
        raise UserError(f"{name}: expected 8 or 16 bits per channel, got floating-point pixels; convert the picture")
    if image.mode.startswith("I"):
        wide = _read_16_bit_grey(image, name)
    if wide is None:
        colour, alpha = _split_alpha(image)
    else:
        narrow = _round_to_8_bits(wide)
        num_colours = 1 if narrow.shape[-1] < 3 else 3
        colour = Image.fromarray(narrow[..., 0] if num_colours == 1 else np.ascontiguousarray(narrow[..., :3]))
        alpha = narrow[..., num_colours:] if narrow.shape[-1] > num_colours else None
    pixels = np.array(_to_srgb(colour, image.info.get("icc_profile"), notes))
    if alpha is not None:
        pixels = _composite_on_white(pixels, alpha, notes)
    return _apply_orientation(pixels, image)


def _damaged(name: str, error: BaseException) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{name}: the picture cannot be read ({reason}); replace or remove the file")


def _split_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """Return a picture of mode L, RGB or CMYK, and its alpha [H, W, 1] or None."""
    alpha = None
    if image.has_transparency_data or image.mode in ("RGBa", "La"):
        image = image.convert("LA" if image.mode in ("La", "LA") else "RGBA")
        alpha = np.asarray(image.getchannel("A"))[..., None]
    if image.mode in ("1", "L", "LA"):
        return image.convert("L"), alpha
    return image if image.mode == "CMYK" else image.convert("RGB"), alpha


def _composite_on_white(pixels: np.ndarray, alpha: np.ndarray, notes: list[str]) -> np.ndarray:
    if (alpha == 255).all():
        return pixels
    notes.append("transparency was composited on white")
    wide_alpha = alpha.astype(np.uint16)
    return ((pixels * wide_alpha + 255 * (255 - wide_alpha) + 127) // 255).astype(np.uint8)


def _apply_orientation(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    try:
        method = _TRANSPOSE_OF_ORIENTATION.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODE_ERRORS:
        # The pixels may be good although the metadata are damaged: leave them as they are.
        method = None
    return pixels if method is None else np.array(Image.fromarray(pixels).transpose(method))


def _round_to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the layout of a pixel in the file, or "" if parts of the file differ."""
    arguments: list[Any] = [tile[3] for tile in getattr(image, "tile", [])]
    raw_modes: set[Any] = {argument[0] if isinstance(argument, tuple) else argument for argument in arguments}
    raw_mode = raw_modes.pop() if len(raw_modes) == 1 else ""
    return raw_mode if isinstance(raw_mode, str) else ""  # for GIF it is a number


def _read_16_bit_grey(image: Image.Image, name: str) -> np.ndarray:
    """Return uint16 [H, W, 1] of a picture of mode I or I;16."""
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise UserError(
            f"{name}: expected grey values from 0 to 65535, got {grey.min()} to {grey.max()}; "
            "save the picture with 16 bits"
        )
    return grey.astype(np.uint16)[..., None]


def _read_16_bit_colour(image: Image.Image, raw_mode: str, file: io.BytesIO | io.BufferedReader) -> np.ndarray:
    """Return uint16 [H, W, 2 to 4] of a loaded picture, of which Pillow keeps the high bytes only.

    The picture is decoded a second time with the bytes in the other order, which gives the low bytes.
    """
    file.seek(0)
    with Image.open(file, formats=FORMATS) as low_image:
        low_raw_mode = _RAW_MODE_OF_LOW_BYTES[raw_mode]
        low_image.tile = [
            tile._replace(args=(low_raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else low_raw_mode)
            for tile in low_image.tile
        ]
        low = np.asarray(low_image).astype(np.uint16)
    if raw_mode == "LA;16B":
        return low[..., ::2] * 256 + low[..., 1::2]
    return np.asarray(image).astype(np.uint16) * 256 + low


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Convert a picture of mode L, RGB or CMYK to RGB, through its colour profile if it has a usable one."""
    if profile:
        try:
            transform = _profile_transform(profile, image.mode)
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("the embedded colour profile is unusable and was ignored")
        else:
            if transform is not None:
                return ImageCms.applyTransform(image, transform) or image
    return image.convert("RGB")


@functools.lru_cache(maxsize=16)
def _profile_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the conversion of a profile to sRGB, or return None if the profile is sRGB already.

    Raises:
        ImageCms.PyCMSError, OSError: The profile is damaged or belongs to another mode.
    """
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "L":
        # The tables that speed up the conversion are off by several levels in the shadows of a grey picture.
        flags |= ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags,
    )
    if mode == "CMYK":
        return transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    probe_image = Image.fromarray(probe if mode == "RGB" else np.ascontiguousarray(probe[..., 0]))
    converted = ImageCms.applyTransform(probe_image, transform)
    before = np.asarray(probe_image.convert("RGB")).astype(np.int16)
    change = np.abs(np.asarray(converted).astype(np.int16) - before).max()
    return transform if change > 1 else None
