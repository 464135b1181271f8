"""Pictures to bytes and back: checks, lists, batches and limits, with any engine."""

import functools
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from cod_jax import images
from cod_jax.codec import allocation, checks, diffc, memory, rates
from cod_jax.codec.batches import in_batches
from cod_jax.codec.checks import writable
from cod_jax.codec.engine import Engine
from cod_jax.coding import stream
from cod_jax.coding.sizes import MAX_PIXELS, ceil_grid, checked_limit
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError
from cod_jax.images import ImageSource
from cod_jax.model_folder.decoding import DecodingConfig, Sampler, checked_seed


class Codec:
    """Compresses pictures of any size from 1x1 up with one model.

    The first picture of each size is compiled, which takes a few seconds; further ones of that size are not. A list of
    equal pictures counts as a size of its own. Decoding with a model folder compiles again for another number of
    steps, for another sampler, and for guidance after none, but not for another seed or strength of guidance.

    Args:
        engine: Computes symbols and pictures; `cod_jax.load` makes one of a folder.
        max_pixels: Larger pictures are refused in both directions, and so are those for which there is not enough
            memory by an estimate. At most 2**27.

    Raises:
        UserError: The limit is not a whole number from 1 to 2**27.
    """

    def __init__(self, engine: Engine, *, max_pixels: int = MAX_PIXELS):
        self._engine, self._coder, self._max_pixels = engine, engine.coder, checked_limit(max_pixels)

    def __repr__(self) -> str:
        return (
            f"Codec({self._engine.summary}, {self.symbols} for {self.pitch}x{self.pitch} pixels, fingerprint "
            f"{self.fingerprint[:8]})"
        )

    @property
    def engine(self) -> Engine:
        """The engine that computes the symbols of pictures and the pictures of symbols."""
        return self._engine

    @property
    def max_pixels(self) -> int:
        """Pixels of the largest picture that is taken."""
        return self._max_pixels

    @property
    def config(self) -> Any:
        """The `ModelConfig` of the model.

        Raises:
            UserError: The model is compiled; its folder does not hold its description.
        """
        if self._engine.config is None:
            raise UserError("a compiled model has no config; load the model folder that it was made from")
        return self._engine.config

    @property
    def fingerprint(self) -> str:
        """64 hex digits that name the model and its prior; files name it by the first 8.

        Those of mode raw, which need no prior, name the model without it.
        """
        return self._coder.fingerprint

    @property
    def pitch(self) -> int:
        """Pixels per symbol in each direction."""
        return self._coder.pitch

    @property
    def symbols(self) -> SymbolFormat:
        """The symbols of the model."""
        return self._coder.symbols

    @property
    def num_levels(self) -> int:
        """Quality levels to choose from with `compress`; 1 where there is no choice."""
        return self.symbols.num_levels

    @property
    def decoding(self) -> DecodingConfig:
        """Default settings of `decompress`."""
        return self._engine.decoding

    @overload
    def compress(
        self,
        image: ImageSource,
        *,
        quality: int | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        effort: int = 0,
        layout: stream.Layout = "cod",
    ) -> bytes: ...

    @overload
    def compress(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        quality: int | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        total_bytes: int | None = None,
        effort: int = 0,
        layout: stream.Layout = "cod",
    ) -> list[bytes]: ...

    def compress(self, image, *, quality=None, bpp=None, max_bytes=None, total_bytes=None, effort=0, layout="cod"):
        """Compress one picture or a list of them; pictures of equal size in a list are computed together.

        Args:
            image: uint8 array [H, W, 3], Pillow image, or anything else that `images.to_uint8_rgb` reads; or a list or
                tuple of those, of equal or different sizes.
            quality: Level of a model that has several, 1 (the smallest files) to `num_levels`, which is the default.
            bpp: Instead of the quality: take the best whose file has at most this many bits per pixel, header
                included.
            max_bytes: Instead of the quality: take the best whose file has at most this many bytes.
            total_bytes: For a list, instead of the quality: choose one for each picture, so that all files together
                have at most this many bytes and the squared error over all pixels of the set is small. Every picture
                is encoded and decoded at every quality.
            effort: Gradient steps that improve the symbols of each picture, see `Engine.refine`; 0 to 10000.
            layout: "cod", the container with the model's fingerprint and a checksum; or, for the published tools,
                "legacy-lite" (CoD-Lite) or "legacy-cod" (CoD), which have neither and no entropy coding.

        Returns:
            The content of a `.cod` file; for a list, a list of them.

        Raises:
            UserError: The input is not a picture, has more than `max_pixels`, or has a side above 65535 pixels in a
                published layout. Or the model does not have the quality, the files of the lowest quality exceed the
                limit, more than one of quality and limits is given, the model does not take the effort, or the layout
                is unknown. For a list the message says which item.
        """
        layout = stream.checked_layout(layout)
        self._coder.check_layout(layout)
        is_list = isinstance(image, (list, tuple))
        effort = rates.checked_effort(effort)
        rates.check_one(is_list, quality=quality, bpp=bpp, max_bytes=max_bytes, total_bytes=total_bytes)
        level = stream.checked_quality(quality, self.num_levels) - 1
        read = functools.partial(self._read, layout=layout)
        each = functools.partial(checks.for_each, named=is_list)
        if total_bytes is not None:
            trials = each(functools.partial(self.compress_at_levels, effort=effort, layout=layout), image)
            return [trial.data for trial in allocation.within_total(trials, total_bytes)]
        pictures = each(read, image if is_list else [image])
        if bpp is not None or max_bytes is not None:
            bpp, max_bytes = bpp and float(bpp), max_bytes and int(max_bytes)
            limited = functools.partial(
                self._compress_within, bpp=bpp, max_bytes=max_bytes, layout=layout, effort=effort
            )
            written = each(limited, pictures)
            return written if is_list else written[0]
        levels = [level] * len(pictures)
        encode = functools.partial(self._encode, effort=effort)
        most = memory.largest_batch(self._engine, None, effort=effort)
        all_symbols = in_batches(encode, pictures, levels, pixels_per_position=1, most_pixels=most, named=is_list)

        def write(coded: tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]) -> bytes:
            symbols, (height, width, _) = coded[0], coded[1].shape
            return self._coder.encode(symbols, height=height, width=width, level=level, layout=layout)

        written = each(write, list(zip(all_symbols, pictures, strict=True)))
        return written if is_list else written[0]

    def compress_at_levels(
        self, image: ImageSource, *, effort: int = 0, layout: stream.Layout = "cod"
    ) -> list[allocation.Trial]:
        """Compress one picture at every quality level, and decode each file to see what it loses.

        Args:
            image: One picture as for `compress`.
            effort: See `compress`.
            layout: See `compress`.

        Returns:
            File, squared error and quality at each level, from the lowest on. The error is that of the picture which
            `decompress` gives without further settings.

        Raises:
            UserError: As `compress`.
        """
        layout = stream.checked_layout(layout)
        self._coder.check_layout(layout)
        effort = rates.checked_effort(effort)
        pixels = self._read(image, layout=layout)
        trials = []
        for level in range(self.num_levels):
            data = self._compress_at(level, pixels, layout, effort)
            trials.append(allocation.trial(level + 1, data, pixels, self.decompress(data, layout=layout)))
        return trials

    def _compress_at(self, level: int, pixels: npt.NDArray[np.uint8], layout: stream.Layout, effort: int) -> bytes:
        height, width, _ = pixels.shape
        symbols = self._encode(pixels[None], np.array([level], np.int32), effort=effort)[0]
        return self._coder.encode(symbols, height=height, width=width, level=level, layout=layout)

    def _compress_within(
        self,
        pixels: npt.NDArray[np.uint8],
        *,
        bpp: float | None,
        max_bytes: int | None,
        layout: stream.Layout,
        effort: int,
    ) -> bytes:
        """Return the file of a picture at the best quality within one of the limits."""
        height, width, _ = pixels.shape
        limit = rates.bytes_within(bpp, height=height, width=width) if bpp is not None else max_bytes or 0
        return rates.best_within(lambda level: self._compress_at(level, pixels, layout, effort), self.num_levels, limit)

    def check_size(self, *, height: int, width: int, layout: stream.Layout = "cod") -> None:
        """Refuse a picture that `compress` would refuse for its size; `images.to_uint8_rgb` takes this as `check_size`.

        Raises:
            UserError: It has more than `max_pixels`, needs more memory than there is, or has a side that the layout
                cannot describe.
        """
        checks.check_size(height=height, width=width, pitch=self.pitch, max_pixels=self._max_pixels, layout=layout)
        memory.check_picture(self._engine, height=height, width=width, decoding=None)

    def _read(self, image: Any, *, layout: stream.Layout) -> npt.NDArray[np.uint8]:
        checks.check_source(image)
        return images.to_uint8_rgb(image, check_size=functools.partial(self.check_size, layout=layout))

    @overload
    def decompress(
        self,
        data: bytes | bytearray | memoryview,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        layout: stream.Layout = "cod",
        coded_steps: int | None = None,
    ) -> npt.NDArray[np.uint8]: ...

    @overload
    def decompress(
        self,
        data: list[Any] | tuple[Any, ...],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        layout: stream.Layout = "cod",
        coded_steps: int | None = None,
    ) -> list[npt.NDArray[np.uint8]]: ...

    def decompress(self, data, *, steps=None, guidance=None, sampler=None, seed=0, layout="cod", coded_steps=None):
        """Decompress what `compress`, or a published tool, made with this model.

        Steps, guidance and sampler are as the model folder says unless they are given, see `decoding`. With the same
        settings and the same seed a file gives the same picture on every device, up to rounding.

        Args:
            data: The content of a `.cod` file, or a list or tuple of them; those of a list with equal sizes are
                computed together.
            steps: Evaluations of the denoiser, 1 to 1000. One step comes closest to the original and has no randomness.
                With more the picture starts from noise and gets texture, if the model learned to sample. Compiled
                models take one step.
            guidance: Classifier-free guidance, 0 to 1000; 1 switches it off and takes half the time. It has no effect
                on one step.
            sampler: "euler" or "adams".
            seed: Number of the noise, 0 to 2^63 - 1; it has no effect on one step. All files of a list have the same.
            layout: "cod", or the layout of a published tool, see `compress`.
            coded_steps: For files of mode diffc: go so many of their steps only, from 0; all by default.

        Returns:
            Pixels uint8 [H, W, 3]; for a list, a list of them. In files of the published tools the last H mod pitch
            rows and W mod pitch columns were never stored; they are mid grey.

        Raises:
            UserError: Damaged, truncated or foreign data, a file of another model, or a setting out of range. For a
                list the message says which item.
        """
        layout = stream.checked_layout(layout)
        decoding, seed = self._checked_decoding(steps, guidance, sampler), checked_seed(seed)
        parse = functools.partial(self._parse, layout=layout, decoding=decoding)
        is_list = isinstance(data, (list, tuple))
        pictures = checks.for_each(parse, data if is_list else [data], named=is_list)
        decode = functools.partial(self._decode, decoding=decoding, seed=seed)

        def plain(some: Sequence[stream.CodedPicture]) -> list[np.ndarray]:
            symbols, levels = [picture.symbols for picture in some], [picture.level for picture in some]
            most = memory.largest_batch(self._engine, decoding)
            return in_batches(
                decode, symbols, levels, pixels_per_position=self.pitch**2, most_pixels=most, named=is_list
            )

        decoded = diffc.decode_among(self._engine, pictures, plain, decoding, coded_steps, named=is_list)
        cropped = [checks.crop(pixels, picture, self.pitch) for pixels, picture in zip(decoded, pictures, strict=True)]
        return cropped if is_list else cropped[0]

    def _parse(self, data: Any, *, layout: stream.Layout, decoding: DecodingConfig) -> stream.CodedPicture:
        picture = checks.parsed(data, self._coder, max_pixels=self._max_pixels, layout=layout)
        memory.check_picture(self._engine, height=picture.height, width=picture.width, decoding=decoding)
        return picture

    def encode(self, image: ImageSource, *, level: int | Sequence[int] | None = None) -> npt.NDArray[np.int32]:
        """Turn a picture, or pictures of equal size, into symbols.

        Args:
            image: uint8 array [H, W, 3] or [B, H, W, 3], a Pillow image, or anything else that `compress` takes, but no
                list. The last row and column are repeated up to a size the model takes.
            level: Quality level from 0, one for all or a list of B; None is the best.

        Returns:
            Symbols int32 [ceil(H / pitch), ceil(W / pitch), C], or [B, ...] of a batch; C is 1 with a codebook.

        Raises:
            UserError: Something that is not a picture, an array of another shape or dtype, or a level that does not
                exist.
        """
        pixels: Any = image if hasattr(image, "ndim") else self._read(image, layout="cod")
        checks.check_pixels(pixels)
        if pixels.ndim == 3:
            return writable(self._encode(pixels[None], self._levels(level, None))[0])
        return writable(self._encode(pixels, self._levels(level, len(pixels))))

    def decode(
        self,
        symbols: np.ndarray,
        *,
        level: int | Sequence[int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> npt.NDArray[np.uint8]:
        """Turn the symbols of a picture, or of pictures of equal size, into pixels.

        Args:
            symbols: Symbols [h, w, C] or [B, h, w, C] as `encode` gives them; the last row and column are repeated up
                to a grid the model takes.
            level: The quality level that they are of, as for `encode`.
            steps: See `decompress`, as for the others.
            guidance: Classifier-free guidance.
            sampler: "euler" or "adams".
            seed: Number of the noise; all pictures have the same.

        Returns:
            Pixels uint8 of that grid, at least [h pitch, w pitch, 3], or [B, ...] of a batch.

        Raises:
            UserError: The array has another shape, or holds a number that is not among the symbols, a level does not
                exist, or a setting is out of range.
        """
        checks.check_symbols(symbols, self.symbols)
        decoding, seed = self._checked_decoding(steps, guidance, sampler), checked_seed(seed)
        if symbols.ndim == 3:
            return writable(self._decode(symbols[None], self._levels(level, None), decoding=decoding, seed=seed)[0])
        return writable(self._decode(symbols, self._levels(level, len(symbols)), decoding=decoding, seed=seed))

    def _levels(self, level: Any, num_pictures: int | None) -> npt.NDArray[np.int32]:
        return checks.checked_levels(level, num_levels=self.num_levels, num_pictures=num_pictures)

    def _checked_decoding(self, steps: Any, guidance: Any, sampler: Any) -> DecodingConfig:
        decoding = self.decoding.override(steps=steps, guidance=guidance, sampler=sampler)
        self._engine.check_decoding(decoding)
        return decoding

    def _encode(
        self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32], *, effort: int = 0
    ) -> npt.NDArray[np.int32]:
        _, height, width, _ = images_uint8.shape
        rows, columns = ceil_grid(height=height, width=width, pitch=self.pitch)
        padded = images.pad_to_multiple(images_uint8, self._engine.size_multiple)
        if effort:
            memory.check_refining(*padded.shape[1:3])
        symbols = self._engine.refine(padded, levels, effort) if effort else self._engine.encode(padded, levels)
        return symbols[:, :rows, :columns]

    def _decode(
        self,
        symbols: npt.NDArray[np.integer],
        levels: npt.NDArray[np.int32],
        *,
        decoding: DecodingConfig,
        seed: int,
    ) -> npt.NDArray[np.uint8]:
        grid = images.pad_to_multiple(symbols.astype(np.int32), self._engine.size_multiple // self.pitch)
        return self._engine.decode(grid, levels, decoding, seed)
