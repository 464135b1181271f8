"""The codec of a compiled model: pictures to bytes and back without the model's code."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from cod_jax import images
from cod_jax.coding import factorized, legacy, pictures, prior, stream
from cod_jax.coding.pictures import MAX_PIXELS
from cod_jax.errors import UserError
from cod_jax.images import ImageSource
from cod_jax.runtime.arrays import read_arrays, read_shape
from cod_jax.runtime.folder import BINS, PRIOR_FILE, WEIGHTS_FILES, Description, read_description, read_file
from cod_jax.runtime.programs import Programs

# Pictures of equal size are computed together up to this many pixels. More would save nothing and take more memory.
BATCH_PIXELS = 2**21


class CompiledCodec:
    """Compresses pictures of any size from 1x1 up with one compiled model, decoding in one step.

    The first picture of each size is compiled, from then on in JAX's persistent cache; a list of equal pictures counts
    as a size of its own.

    Args:
        path: Folder written by `python -m cod_jax.compile`.
        max_pixels: Larger pictures are refused in both directions.

    Raises:
        UserError: No such folder, one that is damaged, from another version, or without programs for this machine.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS):
        folder = Path(path)
        self._description = read_description(folder)
        self._coder = _read_coder(folder, self._description)
        self._max_pixels = max_pixels
        self._encode = Programs(folder, self._description, "encode")
        self._decode = Programs(folder, self._description, "decode")

    def __repr__(self) -> str:
        about = self._description
        symbols = f"{about.codebook_bits} bits" if self._num_channels is None else f"{self._num_channels} numbers"
        return (
            f"CompiledCodec({about.dtype}, {symbols} for {about.pitch}x{about.pitch} pixels, "
            f"fingerprint {self.fingerprint[:8]})"
        )

    @property
    def description(self) -> Description:
        """What the folder says about itself."""
        return self._description

    @property
    def fingerprint(self) -> str:
        """64 hex digits that name the model and its prior, see `Codec.fingerprint`."""
        return self._coder.fingerprint

    @property
    def num_levels(self) -> int:
        """Quality levels to choose from with `compress`; 1 where there is no choice."""
        return self._coder.num_levels

    @property
    def _num_channels(self) -> int | None:
        """Symbols of a grid position with a factorized bottleneck; None with a codebook."""
        return pictures.num_channels(self._coder)

    @overload
    def compress(self, image: ImageSource, *, quality: int | None = None, layout: stream.Layout = "cod") -> bytes: ...

    @overload
    def compress(
        self, image: list[Any] | tuple[Any, ...], *, quality: int | None = None, layout: stream.Layout = "cod"
    ) -> list[bytes]: ...

    def compress(self, image, *, quality=None, layout="cod"):
        """Compress one picture or a list of them; pictures of equal size in a list are computed together.

        Args:
            image: uint8 array [H, W, 3], Pillow image, or whatever else `images.to_uint8_rgb` reads; or a list or tuple
                of those, of equal or different sizes.
            quality: Level of a model that has several, 1 (the smallest files) to `num_levels`, which is the default.
            layout: "cod", the container with the model's fingerprint and a checksum; or, for the published tools,
                "legacy-lite" (CoD-Lite) or "legacy-cod" (CoD), which have neither and no entropy coding.

        Returns:
            The content of a `.cod` file; for a list, a list of them.

        Raises:
            UserError: Something that is no picture, more than `max_pixels`, a side above 65535 pixels in a published
                layout, a quality that the model does not have, or an unknown layout; of a list the message says which
                item.
        """
        layout = stream.checked_layout(layout)
        stream.check_layout(layout, self._coder)
        level = stream.checked_quality(quality, self.num_levels) - 1
        read = functools.partial(self._read, layout=layout)
        if isinstance(image, (list, tuple)):
            return self._compress_all(pictures.for_each(read, image), level, layout)
        return self._compress_all([read(image)], level, layout)[0]

    def _read(self, image: Any, *, layout: stream.Layout) -> npt.NDArray[np.uint8]:
        pictures.check_source(image)
        pixels = images.to_uint8_rgb(image)
        height, width, _ = pixels.shape
        pictures.check_size(height=height, width=width, coder=self._coder, max_pixels=self._max_pixels, layout=layout)
        return pixels

    def _compress_all(
        self, all_pixels: Sequence[npt.NDArray[np.uint8]], level: int, layout: stream.Layout
    ) -> list[bytes]:
        levels = [level] * len(all_pixels)
        symbols = _in_batches(self.encode, all_pixels, levels, lambda pixels: pixels.shape[0] * pixels.shape[1])
        return [
            stream.encode_picture(
                indices, height=pixels.shape[0], width=pixels.shape[1], coder=self._coder, level=level, layout=layout
            )
            for indices, pixels in zip(symbols, all_pixels, strict=True)
        ]

    @overload
    def decompress(
        self, data: bytes | bytearray | memoryview, *, layout: stream.Layout = "cod"
    ) -> npt.NDArray[np.uint8]: ...

    @overload
    def decompress(
        self, data: list[Any] | tuple[Any, ...], *, layout: stream.Layout = "cod"
    ) -> list[npt.NDArray[np.uint8]]: ...

    def decompress(self, data, *, layout="cod"):
        """Decompress, in one step, what `compress`, `Codec.compress` or a published tool made with this model.

        Args:
            data: The content of a `.cod` file, or a list or tuple of them; those of a list with equal sizes are
                computed together.
            layout: "cod", or the layout of a published tool, see `compress`.

        Returns:
            Pixels uint8 [H, W, 3]; for a list, a list of them. In files of the published tools the last H mod pitch
            rows and W mod pitch columns were never stored; they are mid grey.

        Raises:
            UserError: Damaged, truncated or foreign data, or a file of another model; of a list the message says which
                item.
        """
        layout = stream.checked_layout(layout)
        parse = functools.partial(pictures.parse, coder=self._coder, max_pixels=self._max_pixels, layout=layout)
        if isinstance(data, (list, tuple)):
            return self._decompress_all(pictures.for_each(parse, data))
        return self._decompress_all([parse(data)])[0]

    def _decompress_all(self, coded: Sequence[stream.CodedPicture]) -> list[npt.NDArray[np.uint8]]:
        pitch = self._description.pitch
        grids = [picture.indices for picture in coded]
        levels = [picture.level for picture in coded]
        decoded = _in_batches(self.decode, grids, levels, lambda grid: grid.shape[0] * grid.shape[1] * pitch**2)
        return [pictures.crop(pixels, picture, pitch) for pixels, picture in zip(decoded, coded, strict=True)]

    def encode(
        self, image_uint8: npt.NDArray[np.uint8], *, level: int | Sequence[int] | None = None
    ) -> npt.NDArray[np.int32]:
        """Turn pictures of equal size into symbols.

        Args:
            image_uint8: Pixels [B, H, W, 3]; repeated at the bottom and the right up to a size the model takes.
            level: Quality level of a factorized bottleneck, from 0, one for all or a list of B; None is the best.

        Returns:
            Symbols int32 [B, ceil(H / pitch), ceil(W / pitch)], with a fourth axis for the channels of a factorized
            bottleneck.

        Raises:
            UserError: The array has another shape or dtype, or a level does not exist.
        """
        pictures.check_pixels(image_uint8, "batch", "height", "width")
        about = self._description
        padded = images.pad_to_multiple(image_uint8, about.size_multiple)
        cells = padded.shape[1] // about.size_multiple, padded.shape[2] // about.size_multiple
        _, height, width, _ = image_uint8.shape
        rows, columns = legacy.ceil_grid(height=height, width=width, pitch=about.pitch)
        return self._encode(self._with_levels(padded, level), cells)[:, :rows, :columns]

    def decode(
        self, indices: npt.NDArray[np.int32], *, level: int | Sequence[int] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Turn symbols of pictures of equal size into pixels.

        Args:
            indices: Symbols [B, h, w], or [B, h, w, C] of a factorized bottleneck; the last row and column are repeated
                up to a grid the model takes.
            level: The quality level that they are of, as for `encode`.

        Returns:
            Pixels uint8 of that grid, at least [B, h pitch, w pitch, 3].

        Raises:
            UserError: The array has another shape, or holds a number that is no symbol, or a level does not exist.
        """
        pictures.check_symbols(indices, "batch", "rows", "columns", coder=self._coder)
        multiple = self._description.size_multiple // self._description.pitch
        is_scalar = indices.ndim == 3
        symbols = indices.astype(np.int32)
        grid = images.pad_to_multiple(symbols[..., None] if is_scalar else symbols, multiple)
        cells = grid.shape[1] // multiple, grid.shape[2] // multiple
        return self._decode(self._with_levels(grid[..., 0] if is_scalar else grid, level), cells)

    def _with_levels(self, batch: np.ndarray, level: int | Sequence[int] | None) -> Any:
        """What a program takes: pictures or their symbols, with a factorized bottleneck together with their levels."""
        levels = pictures.checked_levels(level, coder=self._coder, num_pictures=len(batch))
        return batch if self._num_channels is None else (batch, np.broadcast_to(levels, batch.shape[:1]))


def _read_coder(folder: Path, description: Description) -> stream.SymbolCoder:
    """What the model decides about its files.

    Raises:
        UserError: The file of the prior is damaged, or a model without a codebook has none, or one for other weights.
    """
    about, symbol_prior = description, None
    is_factorized = about.codebook_bits == 0
    if PRIOR_FILE in about.files:
        data = read_file(folder, about, PRIOR_FILE)
        try:
            arrays = read_arrays(data)
            symbol_prior = (
                factorized.from_arrays(arrays) if is_factorized else prior.from_arrays(arrays, about.codebook_bits)
            )
        except UserError as error:
            raise UserError(f"{folder / PRIOR_FILE} is damaged ({error}); make the folder again") from error
    elif is_factorized:
        raise UserError(f"{folder} has no {PRIOR_FILE}, which codes the symbols of its model; make the folder again")
    for name in WEIGHTS_FILES.values() if is_factorized else ():
        try:
            bins = read_shape(folder / name, BINS)
        except UserError as error:
            raise UserError(f"{folder / name} is damaged ({error}); make the folder again") from error
        pictures.check_tables(symbol_prior, bins)
    return stream.SymbolCoder(about.weights_fingerprint, about.pitch, about.codebook_bits, symbol_prior)


def _in_batches(
    function: Callable[..., np.ndarray],
    items: Sequence[np.ndarray],
    levels: Sequence[int],
    num_pixels: Callable[[np.ndarray], int],
) -> list[np.ndarray]:
    """Call a function of batches and their quality levels with all items; those of equal shape are computed together.

    Batches hold `BATCH_PIXELS` pixels at most, or one item, and all of one shape have the same length, so that they
    compile once: the last is filled up with its last item.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.shape, []).append(place)
    results: dict[int, np.ndarray] = {}
    for same in places.values():
        largest = max(1, BATCH_PIXELS // num_pixels(items[same[0]]))
        num_batches = -(-len(same) // largest)
        length = -(-len(same) // num_batches)
        for start in range(0, len(same), length):
            batch = same[start : start + length]
            filled = batch + batch[-1:] * (length - len(batch))
            output = function(np.stack([items[place] for place in filled]), level=[levels[place] for place in filled])
            results.update(zip(batch, output, strict=False))
    return [results[place] for place in range(len(items))]
