"""The codec for users: pictures to bytes and back."""

import functools
import os
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax import images
from cod_jax.coding import legacy, pictures, stream
from cod_jax.coding.pictures import MAX_PIXELS
from cod_jax.diffusion.noise import seed_words, seeded_noise
from cod_jax.diffusion.samplers import sample
from cod_jax.errors import UserError
from cod_jax.images import ImageSource
from cod_jax.model_folder.bundle import Bundle, load_bundle
from cod_jax.model_folder.decoding import DecodingConfig, Sampler, checked_seed
from cod_jax.model_folder.search import find_model
from cod_jax.models import CoD, ComputeConfig, Functional, ModelConfig, build_model
from cod_jax.models.compute import matmul_precision
from cod_jax.models.condition_codec import NULL_CONDITION_VALUE
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.models.functional import count_params
from cod_jax.models.space import Space

# Accelerators run the pixel head on the whole picture up to this size (2.6 kilobytes per pixel), then row by row.
WHOLE_HEAD_PIXELS = 2**22


def load(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> "Codec":
    """Load a model folder written by `python -m cod_jax.export`.

    Args:
        path: Model folder.
        max_pixels: Larger pictures are refused, so that a few bytes from a stranger cannot ask for all memory.

    Raises:
        UserError: No model folder, or one that is damaged or from another version.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"a model is named by the path of its folder, not by {path!r}; give a path")
    return Codec(load_bundle(path), max_pixels=max_pixels)


class Codec:
    """Compresses pictures of any size from 1x1 up with one model.

    The first picture of each size compiles, which takes a few seconds; further ones of that size do not. Decoding
    compiles again for another number of steps, for another sampler, and for guidance after none, but not for another
    seed or strength of guidance.

    Args:
        bundle: A loaded model folder.
        max_pixels: Larger pictures are refused in both directions.

    Raises:
        UserError: The bundle lacks the autoencoder that its model needs, or the tables that code its symbols.
    """

    def __init__(self, bundle: Bundle, *, max_pixels: int = MAX_PIXELS):
        self._config, self._decoding = bundle.config, bundle.decoding
        self._max_pixels = max_pixels
        self._coder = bundle.symbol_coder()
        symbols = bundle.config.codec.symbols
        if symbols.bits is None:
            pictures.check_tables(bundle.prior, (symbols.num_levels, symbols.num_channels))
        functional = build_model(bundle.config, ComputeConfig(bundle.dtype))
        self._precision = matmul_precision(bundle.dtype)
        space = Space(bundle.config, bundle.dtype)
        if space.functional is not None:
            if not bundle.autoencoder:
                raise UserError("the model's latents need an autoencoder, and the bundle has none; export it again")
            space.functional.check(bundle.autoencoder)
        self._params, self._autoencoder = jax.tree.map(jnp.asarray, (bundle.params, bundle.autoencoder))

        def encode(params, image_uint8, level=None):
            codec = functional.bind(params).codec
            z = codec.encode(images.uint8_to_unit(image_uint8))
            return codec.quantize(z, level=level).symbols

        self._encode = jax.jit(encode)
        decode = _make_decode(bundle.config, functional, space)
        self._decode = jax.jit(decode, static_argnames=("num_steps", "method", "guided"))

    def __repr__(self) -> str:
        codec = self.config.codec
        bits = codec.symbols.bits
        symbols = f"{codec.symbols.num_channels} numbers" if bits is None else f"{bits} bits"
        return (
            f"Codec({count_params(self._params):,} parameters, {symbols} for {codec.pitch}x{codec.pitch} pixels, "
            f"fingerprint {self.fingerprint[:8]})"
        )

    @property
    def config(self) -> ModelConfig:
        """What the model is."""
        return self._config

    @property
    def fingerprint(self) -> str:
        """64 hex digits that name the model and its prior; files name it by the first 8.

        Those of mode raw, which need no prior, name the model without it.
        """
        return self._coder.fingerprint

    @property
    def num_levels(self) -> int:
        """Quality levels to choose from with `compress`; 1 where there is no choice."""
        return self._coder.num_levels

    @property
    def decoding(self) -> DecodingConfig:
        """How pictures are decoded unless something else is asked for."""
        return self._decoding

    @overload
    def compress(self, image: ImageSource, *, quality: int | None = None, layout: stream.Layout = "cod") -> bytes: ...

    @overload
    def compress(
        self, image: list[Any] | tuple[Any, ...], *, quality: int | None = None, layout: stream.Layout = "cod"
    ) -> list[bytes]: ...

    def compress(self, image, *, quality=None, layout="cod"):
        """Compress one picture or a list of them.

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
        compress = functools.partial(self._compress, level=level, layout=layout)
        return pictures.for_each(compress, image) if isinstance(image, (list, tuple)) else compress(image)

    def _compress(self, image: Any, *, level: int, layout: stream.Layout) -> bytes:
        pictures.check_source(image)
        pixels = images.to_uint8_rgb(image)
        height, width, _ = pixels.shape
        pictures.check_size(height=height, width=width, coder=self._coder, max_pixels=self._max_pixels, layout=layout)
        indices = self.encode(pixels, level=level)
        return stream.encode_picture(indices, height=height, width=width, coder=self._coder, level=level, layout=layout)

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
    ) -> np.ndarray: ...

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
    ) -> list[np.ndarray]: ...

    def decompress(self, data, *, steps=None, guidance=None, sampler=None, seed=0, layout="cod"):
        """Decompress what `compress`, or a published tool, made with this model.

        What is left out of steps, guidance and sampler is as the model folder says, see `decoding`. With the same
        settings and the same seed a file gives the same picture on every device, up to rounding.

        Args:
            data: The content of a `.cod` file, or a list or tuple of them.
            steps: Evaluations of the denoiser, 1 to 1000. One step comes closest to the original and has no randomness;
                from two steps on the picture starts from noise, and with about 25 it looks most natural.
            guidance: Classifier-free guidance, 0 to 1000; 1 is none and takes half the time. It has no effect on one
                step.
            sampler: "euler" or "adams".
            seed: Number of the noise, 0 to 2^63 - 1; it has no effect on one step. All files of a list have the same.
            layout: "cod", or the layout of a published tool, see `compress`.

        Returns:
            Pixels uint8 [H, W, 3]; for a list, a list of them. In files of the published tools the last H mod pitch
            rows and W mod pitch columns were never stored; they are mid grey.

        Raises:
            UserError: Damaged, truncated or foreign data, a file of another model, or a setting out of range; of a list
                the message says which item.
        """
        layout = stream.checked_layout(layout)
        self.decoding.override(steps=steps, guidance=guidance, sampler=sampler)
        settings: dict[str, Any] = {
            "steps": steps,
            "guidance": guidance,
            "sampler": sampler,
            "seed": checked_seed(seed),
        }
        decompress = functools.partial(self._decompress, layout=layout, **settings)
        return pictures.for_each(decompress, data) if isinstance(data, (list, tuple)) else decompress(data)

    def _decompress(self, data: Any, *, layout: stream.Layout, **settings: Any) -> np.ndarray:
        try:
            picture = pictures.parse(data, coder=self._coder, max_pixels=self._max_pixels, layout=layout)
        except stream.OtherModelError as error:
            found = find_model(error.model, error.mode)
            raise UserError(f"{error}, which is {found}" if found else str(error)) from error
        decoded = self.decode(picture.indices, level=picture.level, **settings)
        return pictures.crop(decoded, picture, self._coder.pitch)

    def encode(self, image_uint8: np.ndarray, *, level: int | None = None) -> np.ndarray:
        """Turn a picture into symbols.

        Args:
            image_uint8: Pixels [H, W, 3]; repeated at the bottom and the right up to a size the model takes.
            level: Quality level of a factorized bottleneck, from 0; None is the best.

        Returns:
            Symbols int32 [ceil(H / pitch), ceil(W / pitch)], with a third axis for the channels of a factorized
            bottleneck.

        Raises:
            UserError: The array has another shape or dtype, or the level does not exist.
        """
        pictures.check_pixels(image_uint8, "height", "width")
        levels = self._levels(level)
        height, width, _ = image_uint8.shape
        rows, columns = legacy.ceil_grid(height=height, width=width, pitch=self.config.codec.pitch)
        padded = images.pad_to_multiple(image_uint8, self.config.size_multiple)
        with jax.default_matmul_precision(self._precision):
            indices = self._encode(self._params, padded[None], levels)
        symbols = np.asarray(indices)[0, :rows, :columns]
        return symbols if self.config.codec.symbols.bits is None else symbols[..., 0]

    def decode(
        self,
        indices: np.ndarray,
        *,
        level: int | None = None,
        steps=None,
        guidance=None,
        sampler=None,
        seed=0,
    ) -> np.ndarray:
        """Turn symbols into a picture.

        Args:
            indices: Symbols [h, w] or [h, w, C] as `encode` gives them; the last row and column are repeated up to a
                grid the model takes.
            level: The level that they are of.
            steps: See `decompress`, as the others.
            guidance: Classifier-free guidance.
            sampler: "euler" or "adams".
            seed: Number of the noise.

        Returns:
            Pixels uint8 of that grid, at least [h pitch, w pitch, 3].

        Raises:
            UserError: The array has another shape, or holds a number that is no symbol, the level does not exist, or a
                setting is out of range.
        """
        pictures.check_symbols(indices, "rows", "columns", coder=self._coder)
        levels = self._levels(level)
        decoding = self.decoding.override(steps=steps, guidance=guidance, sampler=sampler)
        words = seed_words(checked_seed(seed))
        multiple = self.config.size_multiple // self.config.codec.pitch
        grid = images.pad_to_multiple(np.atleast_3d(indices.astype(np.int32)), multiple)
        # One step is one program, whatever the settings that it does not use.
        is_one = decoding.num_steps == 1
        with jax.default_matmul_precision(self._precision):
            pixels = self._decode(
                self._params,
                self._autoencoder,
                grid[None],
                words,
                np.float32(decoding.guidance_scale),
                level=levels,
                num_steps=decoding.num_steps,
                method="euler" if is_one else decoding.sampler,
                guided=not is_one and decoding.guidance_scale != 1.0,
            )
        return np.asarray(pixels)[0]

    def _levels(self, level: int | None) -> np.ndarray | None:
        """The level of a picture as the model takes it, [1], which is not at all with a codebook."""
        levels = pictures.checked_levels(level, coder=self._coder)
        return levels[None]


def _make_decode(config: ModelConfig, functional: Functional[CoD], space: Space) -> Callable[..., jax.Array]:
    """A function of parameters, symbols, and what decides which of their pictures it makes.

    Of these `num_steps`, `method` and `guided` are static; the words of the seed, the guidance scale and the level are
    not.
    """

    def decode(params, autoencoder, indices, words, guidance_scale, *, num_steps, method, guided, level=None):
        model = functional.bind(params)
        condition = model.codec.decode(model.codec.dequantize(indices, level=level))
        batch, rows, columns, _ = condition.shape
        image_shape = (batch, rows * PATCH_SIZE, columns * PATCH_SIZE, 3)
        pixels = image_shape[1] * image_shape[2] * (2 if guided else 1)
        by_rows = jax.default_backend() == "cpu" or pixels > WHOLE_HEAD_PIXELS
        if num_steps == 1:
            return pixels_of(autoencoder, model.one_step(condition, by_rows=by_rows))
        unconditional = None
        if guided:
            z = model.codec.encode(jnp.full(image_shape, NULL_CONDITION_VALUE))
            unconditional = model.codec.decode(model.codec.quantize(z, level=level).values)
        values = sample(
            functools.partial(model.velocity, by_rows=by_rows),
            seeded_noise(words, config.values_shape(image_shape)),
            condition,
            unconditional,
            num_steps=num_steps,
            method=method,
            guidance_scale=guidance_scale if guided else 1.0,
        )
        return pixels_of(autoencoder, values)

    def pixels_of(autoencoder, values):
        return images.signed_to_uint8(space.decode(autoencoder, values))

    return decode
