"""Checks of pictures, files, symbols and quality levels, and cropping what was decoded."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cod_jax.coding import stream
from cod_jax.coding.fingerprints import OtherModelError
from cod_jax.coding.sizes import RAISE_LIMIT, exceeds_limit
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError
from cod_jax.images.arrays import is_array

UNCOVERED_GREY = 128


def for_each(function: Callable[[Any], Any], items: Sequence[Any], *, named: bool = True) -> list[Any]:
    """Call a function with each item; an error says which one it was, unless the user gave a single one (`named`).

    Raises:
        UserError: The function raised it.
    """
    results: list[Any] = []
    for index, item in enumerate(items):
        try:
            results.append(function(item))
        except UserError as error:
            if not named:
                raise
            raise UserError(f"item [{index}]: {error}") from error
    return results


def check_source(image: Any) -> None:
    """Refuse what cannot be a picture: anything but an array, a Pillow image, a path, or the content of a file.

    Raises:
        UserError: It is something else.
    """
    if not (is_array(image) or isinstance(image, (Image.Image, str, os.PathLike, bytes))):
        raise UserError(f"expected a uint8 array or a Pillow image, got {type(image).__name__}")


def check_size(*, height: int, width: int, pitch: int, max_pixels: int, layout: stream.Layout) -> None:
    """Refuse a picture that is too large for a codec or its files.

    Raises:
        UserError: It has more than `max_pixels`, or a side that the layout cannot describe.
    """
    if exceeds_limit(height=height, width=width, pitch=pitch, max_pixels=max_pixels):
        raise UserError(
            f"{width}x{height} is more than the limit of {max_pixels} pixels; make the picture smaller, or "
            f"{RAISE_LIMIT}"
        )
    stream.check_size(height=height, width=width, layout=layout)


def check_pixels(image_uint8: npt.NDArray[Any]) -> None:
    """Refuse an array that is not a picture or a batch of them.

    Raises:
        UserError: It has another shape or dtype.
    """
    if image_uint8.ndim not in (3, 4) or image_uint8.shape[-1] != 3 or image_uint8.dtype != np.uint8:
        raise UserError(
            "expected uint8 pixels [height, width, 3] or [batch, height, width, 3], got "
            f"{image_uint8.dtype} {list(image_uint8.shape)}"
        )
    if 0 in image_uint8.shape:
        raise UserError(f"expected at least one pixel, got an array of shape {list(image_uint8.shape)}")


def check_symbols(symbols: npt.NDArray[Any], expected: SymbolFormat) -> None:
    """Refuse an array that is not the symbols of a picture, or of a batch of them.

    Without this a model would take another symbol instead, and make a picture of it.

    Raises:
        UserError: It has another shape or dtype, or holds a number that is not among the symbols.
    """
    channels = expected.num_channels
    is_integer = np.issubdtype(symbols.dtype, np.integer)
    if symbols.ndim not in (3, 4) or symbols.shape[-1] != channels or 0 in symbols.shape or not is_integer:
        raise UserError(
            f"expected integer symbols [rows, columns, {channels}] or [batch, rows, columns, {channels}], got "
            f"{symbols.dtype} {list(symbols.shape)}"
        )
    if not expected.first <= symbols.min() <= symbols.max() <= expected.last:
        raise UserError(
            f"expected symbols from {expected.first} to {expected.last}, got {symbols.min()} to {symbols.max()}"
        )


def checked_levels(level: Any, *, num_levels: int, num_pictures: int | None) -> npt.NDArray[np.int32]:
    """Return the quality level of each picture, from 0.

    Args:
        level: One for all pictures, or one for each if `num_pictures` is given; None is the best.
        num_levels: Quality levels of the model.
        num_pictures: Pictures of a batch; None stands for a single picture without an axis for batches.

    Returns:
        Levels int32 [num_pictures], or [1].

    Raises:
        UserError: A level is not a whole number, there are too many or too few, or the model does not have one.
    """
    levels = np.asarray(num_levels - 1 if level is None else level)
    shapes = [()] if num_pictures is None else [(), (num_pictures,)]
    if not np.issubdtype(levels.dtype, np.integer) or levels.shape not in shapes:
        expected = "a whole number" if num_pictures is None else f"a whole number, or one for each of {num_pictures}"
        raise UserError(f"expected level to be {expected}, got {level!r}")
    if not 0 <= levels.min() <= levels.max() < num_levels:
        raise UserError(f"level must be between 0 and {num_levels - 1} for this model, got {level!r}")
    return np.broadcast_to(levels.astype(np.int32), (1 if num_pictures is None else num_pictures,))


def content_of(data: Any) -> bytes:
    """Return the content of a compressed file.

    Raises:
        UserError: It is not bytes.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UserError(f"expected the bytes of a compressed file, got {type(data).__name__}; read the file first")
    return bytes(data)


def parsed(data: Any, coder: stream.SymbolCoder, *, max_pixels: int, layout: stream.Layout) -> stream.CodedPicture:
    """Return what a file holds.

    Args:
        data: The content of the file.
        coder: Reads the files of the model.
        max_pixels: Larger pictures are refused.
        layout: How the file is laid out.

    Raises:
        UserError: It is not bytes, damaged, too large, or of another model; of that the message says where it is, if
            that is known.
    """
    try:
        return coder.decode(content_of(data), max_pixels=max_pixels, layout=layout)
    except OtherModelError as error:
        from cod_jax.model_folder.search import find_model

        found = find_model(error.model, error.mode)
        raise UserError(f"{error}, which is {found}" if found else str(error)) from error


def writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array that its receiver may change: arrays of JAX are read-only."""
    return np.require(array, requirements=("C", "W"))


def crop(decoded: npt.NDArray[np.uint8], picture: stream.CodedPicture, pitch: int) -> npt.NDArray[np.uint8]:
    """Cut the picture of a file out of its decoded symbols.

    Args:
        decoded: Pixels [H, W, 3] of the whole grid, or of a larger one.
        picture: The content of the file.
        pitch: Pixels per symbol in each direction.

    Returns:
        Pixels [height, width, 3]; where no symbols were stored they are mid grey.
    """
    height, width = picture.height, picture.width
    if picture.covers_all:
        return writable(decoded[:height, :width])
    rows, columns = picture.symbols.shape[:2]
    covered = decoded[: rows * pitch, : columns * pitch]
    pixels = np.full((height, width, 3), UNCOVERED_GREY, np.uint8)
    pixels[: covered.shape[0], : covered.shape[1]] = covered
    return pixels
