"""What every codec refuses of pictures, files, symbols and quality levels, and how it crops what it decoded."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from PIL import Image

from cod_jax.coding import legacy, stream
from cod_jax.coding.factorized import LARGEST_SYMBOL, FactorizedPrior
from cod_jax.coding.prior import SymbolPrior
from cod_jax.errors import UserError

MAX_PIXELS = 2**24
"""Largest picture taken by default, 4096x4096; 3840x2160 is half of that.

One kilobyte per pixel is 17 gigabytes at this limit. Temporary memory on a CPU in kilobytes per pixel: encoding takes
0.5 where the first convolution has stride 2 (1.3 at pitch 4) and 1.6 where it has stride 1. Decoding takes 0.1 with
CoD-Lite (0.9 at pitch 4), 0.2 to 0.7 with pixel CoD, and 3.1 with latent CoD because of its autoencoder; with guidance
it takes at least what encoding takes.
"""

UNCOVERED_GREY = 128


def for_each(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call a function with each item; an error says which one it was.

    Raises:
        UserError: The function raised it.
    """
    results: list[Any] = []
    for index, item in enumerate(items):
        try:
            results.append(function(item))
        except UserError as error:
            raise UserError(f"item [{index}]: {error}") from error
    return results


def check_source(image: Any) -> None:
    """Refuse what cannot be a picture: no array, no Pillow image, no path, and not the content of a file.

    Raises:
        UserError: It is something else.
    """
    if not isinstance(image, (np.ndarray, jax.Array, Image.Image, str, os.PathLike, bytes)):
        raise UserError(f"{type(image).__name__} is no picture; give a uint8 array or a Pillow image")


def check_size(
    *, height: int, width: int, coder: stream.SymbolCoder, max_pixels: int, layout: stream.Layout = "cod"
) -> None:
    """Refuse a picture that is too large for a codec or its files.

    Raises:
        UserError: It has more than `max_pixels`, or a side that the layout cannot describe.
    """
    if legacy.exceeds_limit(height=height, width=width, pitch=coder.pitch, max_pixels=max_pixels):
        raise UserError(
            f"{width}x{height} is more than the limit of {max_pixels} pixels; make the picture smaller, or "
            f"{legacy.RAISE_LIMIT}"
        )
    stream.check_size(height=height, width=width, layout=layout)


def check_pixels(image_uint8: npt.NDArray[Any], *axes: str) -> None:
    """Refuse an array that is not uint8 of the given axes and three colours.

    Raises:
        UserError: It has another shape or dtype.
    """
    if image_uint8.ndim != len(axes) + 1 or image_uint8.shape[-1] != 3 or image_uint8.dtype != np.uint8:
        raise UserError(
            f"pixels of shape {image_uint8.shape} and dtype {image_uint8.dtype} cannot be encoded; give uint8 "
            f"[{', '.join(axes)}, 3]"
        )


def parse(data: Any, *, coder: stream.SymbolCoder, max_pixels: int, layout: stream.Layout) -> stream.CodedPicture:
    """Read the content of a file, see `stream.decode_picture`.

    Raises:
        OtherModelError: The file names another model.
        UserError: The data is no bytes, or no such file.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UserError(f"compressed data is bytes, not {type(data).__name__}; read the file first")
    content = bytes(data)  # pyright: ignore[reportUnknownArgumentType]
    return stream.decode_picture(content, coder=coder, max_pixels=max_pixels, layout=layout)


def num_channels(coder: stream.SymbolCoder) -> int | None:
    """Symbols of a grid position with a factorized bottleneck; None with a codebook."""
    return coder.prior.num_channels if isinstance(coder.prior, FactorizedPrior) else None


def check_symbols(indices: npt.NDArray[Any], *axes: str, coder: stream.SymbolCoder) -> None:
    """Refuse an array that is not symbols of a model, with the given axes and that of its channels if it has them.

    Without this a model would take another symbol instead, and make a picture of it.

    Raises:
        UserError: It has another shape, is of no integers, or holds a number that is no symbol.
    """
    channels = num_channels(coder)
    expected = axes if channels is None else (*axes, str(channels))
    if indices.ndim != len(expected) or channels not in (None, indices.shape[-1]):
        raise UserError(f"symbols of shape {indices.shape} are no [{', '.join(expected)}]")
    if not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"symbols of dtype {indices.dtype} are no integers")
    first, last = (0, 2**coder.bits - 1) if channels is None else (-LARGEST_SYMBOL, LARGEST_SYMBOL)
    if indices.size and not first <= indices.min() <= indices.max() <= last:
        raise UserError(
            f"the symbols are {indices.min()} to {indices.max()}; those of this model are {first} to {last}"
        )


def checked_levels(level: Any, *, coder: stream.SymbolCoder, num_pictures: int | None = None) -> npt.NDArray[np.int32]:
    """Quality levels from 0 as int32; None is the best.

    Args:
        level: One for all pictures, or one for each if `num_pictures` is given.
        coder: The model's.
        num_pictures: Pictures of a batch; None stands for a single picture without an axis for batches.

    Returns:
        One level [], or one for each picture [num_pictures], as they were given.

    Raises:
        UserError: A level is no whole number, there are too many or too few, or the model does not have one.
    """
    levels = np.asarray(coder.num_levels - 1 if level is None else level)
    shapes = [()] if num_pictures is None else [(), (num_pictures,)]
    if not np.issubdtype(levels.dtype, np.integer) or levels.shape not in shapes:
        for_each_picture = "" if num_pictures is None else f", or one for each of {num_pictures} pictures"
        raise UserError(f"the level is {level!r}; give a whole number{for_each_picture}")
    if levels.size and not 0 <= levels.min() <= levels.max() < coder.num_levels:
        raise UserError(f"the level is {level!r}, and this model has the levels 0 to {coder.num_levels - 1}")
    return levels.astype(np.int32)


def check_tables(symbol_prior: SymbolPrior | FactorizedPrior | None, bins: tuple[int, ...]) -> None:
    """Refuse a factorized bottleneck without the tables that code its symbols, or with those of another.

    Args:
        symbol_prior: The prior that came with the model.
        bins: Shape of its bins, (quality levels, channels).

    Raises:
        UserError: They do not go together.
    """
    if not isinstance(symbol_prior, FactorizedPrior):
        raise UserError("the model has no codebook and no tables that code its symbols; load it with its prior")
    tables = len(symbol_prior.levels), symbol_prior.num_channels
    if tables != bins:
        raise UserError(
            f"the tables that code the symbols are for (levels, channels) {tables}, but the model has {bins}; make its "
            "folder again"
        )


def crop(decoded: npt.NDArray[np.uint8], picture: stream.CodedPicture, pitch: int) -> npt.NDArray[np.uint8]:
    """Cut the picture of a file out of what its symbols were decoded to.

    Args:
        decoded: Pixels [H, W, 3] of the whole grid, or of a larger one.
        picture: What the file stands for.
        pitch: Pixels per symbol in each direction.

    Returns:
        Pixels [height, width, 3]; where no symbols were stored they are mid grey.
    """
    height, width = picture.height, picture.width
    if picture.covers_all:
        return np.ascontiguousarray(decoded[:height, :width])
    rows, columns = picture.indices.shape[:2]
    covered = decoded[: rows * pitch, : columns * pitch]
    pixels = np.full((height, width, 3), UNCOVERED_GREY, np.uint8)
    pixels[: covered.shape[0], : covered.shape[1]] = covered
    return pixels
