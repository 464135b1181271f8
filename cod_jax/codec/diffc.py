"""Mode diffc: a file holds the symbols of a picture, and then steps of the reverse diffusion towards it.

Each step sends a sample of the true posterior by the number of a shared random candidate (Vonderfecht and Liu 2025,
"Lossy compression with pretrained diffusion models"). docs/diffc.md explains it, docs/bitstream.md the files.
"""

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cod_jax import images
from cod_jax.codec import checks, memory, rates
from cod_jax.codec.engine import NO_WALK, Engine
from cod_jax.coding import walk
from cod_jax.coding.sizes import RAISE_LIMIT
from cod_jax.coding.stream import CodedPicture, checked_quality
from cod_jax.diffusion.diffc import flow_scale, flow_time
from cod_jax.errors import UserError
from cod_jax.images import ImageSource
from cod_jax.model_folder.decoding import DecodingConfig, is_number

if TYPE_CHECKING:
    from cod_jax.codec.codec import Codec

# Steps over which a given rate is spread; with fewer, the prior is worse, and more take longer.
NUM_STEPS = 48
# Bits per pixel of a step where no rate is given.
STEP_BITS_PER_PIXEL = 0.0005
# What state, noise, order and words of the generator take beside the model, rather less than more.
BYTES_PER_PIXEL = 100.0


def compress(
    codec: "Codec",
    image: ImageSource,
    *,
    steps: int | None = None,
    bpp: float | None = None,
    quality: int | None = None,
) -> bytes:
    """Compress a picture in mode diffc, at any rate.

    Equal arguments give equal files on one machine.

    Args:
        codec: The codec of a model folder.
        image: What `Codec.compress` takes, but no list.
        steps: How many steps to code, 1 to 1000; each takes about 0.0005 bits per pixel.
        bpp: Instead of the steps: the file has at most this many bits per pixel, header included, and not much less.
        quality: Level of the symbols, for a model that has several; 1, the smallest, by default.

    Raises:
        UserError: It is not a picture, or too large; the model is compiled or does not have the quality; neither or
            both of steps and rate are given; or the rate or the steps cannot be reached, of which the message says how
            far they reach.
    """
    from cod_jax.codec import walking

    if (steps is None) == (bpp is None):
        raise UserError("mode diffc takes either steps or bpp; give one of them")
    if bpp is not None:
        rates.check_bits_per_pixel(bpp)
    elif not is_number(numbers.Integral, steps) or not 1 <= (steps or 0) <= walk.MAX_STEPS:
        raise UserError(f"expected steps to be a whole number from 1 to {walk.MAX_STEPS}, got {steps!r}")
    level = checked_quality(1 if quality is None else quality, codec.num_levels) - 1
    checks.check_source(image)
    pixels = images.to_uint8_rgb(image, check_size=codec.check_size)
    height, width, _ = pixels.shape
    most = walk.most_steps(height=height, width=width, max_pixels=codec.max_pixels)
    if steps is not None and steps > most:
        raise UserError(f"expected at most {most} steps for {width}x{height} pixels, got {steps}; {RAISE_LIMIT}")
    _check_memory(codec.engine, height, width, codec.decoding)
    target = codec.engine.values(images.pad_to_multiple(pixels[None], codec.engine.size_multiple))
    symbols = codec.encode(pixels, level=level)
    coder = codec.engine.coder
    write = functools.partial(coder.file_of, *coder.shortest(symbols, level), height=height, width=width)
    max_bytes = None if bpp is None else rates.bytes_within(bpp, height=height, width=width)
    step_bits = STEP_BITS_PER_PIXEL * height * width
    if max_bytes is not None:
        step_bits = (max_bytes - len(write())) * 8 / NUM_STEPS
    estimate = functools.partial(codec.engine.estimate, condition=_condition(codec.engine, symbols, level))
    coded: list[walking.Step] = []
    data = b""
    for step in walking.steps_towards(target, estimate, walking.layout_for(target.size, step_bits)):
        coded.append(step)
        if max_bytes is None and len(coded) < (steps or 0):
            continue
        before, data = data, write(steps=walking.written(coded))
        if max_bytes is None:
            return data
        if len(data) <= max_bytes and len(coded) == most:
            return data
        if len(data) > max_bytes:
            if before:
                return before
            raise UserError(
                f"expected at least {8 * len(data) / (height * width):.4g} bits per pixel, which the first step of "
                f"this picture takes, got {bpp}; allow more"
            )
    reached = 8 * len(write(steps=walking.written(coded)) if coded else write()) / (height * width)
    asked = f"{steps} steps" if bpp is None else f"{bpp} bits per pixel"
    raise UserError(
        f"expected at most {len(coded)} steps and {reached:.4g} bits per pixel for this picture, where the schedule "
        f"ends, got {asked}; ask for less"
    )


def decode_among(
    engine: Engine,
    pictures: Sequence[CodedPicture],
    decode_plain: Callable[[Sequence[CodedPicture]], Sequence[np.ndarray]],
    decoding: DecodingConfig,
    coded_steps: int | None,
    *,
    named: bool,
) -> list[npt.NDArray[np.uint8]]:
    """Return the pixels [H, W, 3] of the whole grids of files of all modes, in their order.

    Args:
        engine: The engine of their model.
        pictures: Their content.
        decode_plain: Decodes those of other modes together.
        decoding: How the sampler goes on from the state.
        coded_steps: See `decode`; only with files of mode diffc.
        named: Whether an error says which file it is about.

    Raises:
        UserError: As `decode`, or there are `coded_steps` for a file of another mode.
    """

    def check(picture: CodedPicture) -> None:
        if picture.walk is None and coded_steps is not None:
            raise UserError("coded_steps is for files of mode diffc, got one of another mode; leave it out")

    checks.for_each(check, pictures, named=named)
    decoded = iter(decode_plain([picture for picture in pictures if picture.walk is None]))

    def finished(picture: CodedPicture) -> npt.NDArray[np.uint8]:
        return next(decoded) if picture.walk is None else decode(engine, picture, decoding, coded_steps=coded_steps)

    return checks.for_each(finished, pictures, named=named)


def decode(
    engine: Engine, picture: CodedPicture, decoding: DecodingConfig, *, coded_steps: int | None = None
) -> npt.NDArray[np.uint8]:
    """Return the pixels [H, W, 3] of the whole grid of a file of mode diffc.

    All steps are walked, whichever of them are shown, because only the last state can be checked.

    Args:
        engine: The engine of its model.
        picture: The content of the file.
        decoding: How the sampler goes on from the state.
        coded_steps: How many of the file's steps to go before that; None is all, 0 none.

    Raises:
        UserError: The file has fewer steps, the model is compiled, or the state is not that of the encoder.
    """
    steps = picture.walk
    if steps is None:
        raise ValueError("the file is not of mode diffc")
    number = len(steps.grades)
    chosen = number if coded_steps is None else coded_steps
    if not is_number(numbers.Integral, chosen) or not 0 <= chosen <= number:
        raise UserError(f"expected coded_steps from 0 to {number}, the steps of this file, got {coded_steps!r}")
    from cod_jax.codec import walking

    _check_memory(engine, picture.height, picture.width, decoding)
    condition = _condition(engine, picture.symbols, picture.level)
    rows, columns = picture.symbols.shape[:2]
    sides = (-(-side * engine.coder.pitch // engine.size_multiple) * engine.size_multiple for side in (rows, columns))
    shape = engine.config.values_shape((1, *sides, 3))
    path = walking.states(shape, functools.partial(engine.estimate, condition=condition), steps)
    shown = last = next(path)
    for place, last in enumerate(path, 1):
        shown = last if place == chosen else shown
    walking.verify(steps, last)
    x_t = shown.values * np.float32(flow_scale(shown.snr_squared))
    levels = np.array([picture.level], np.int32)
    return engine.finish(x_t, flow_time(shown.snr_squared), condition, levels, decoding)[0]


def _check_memory(engine: Engine, height: int, width: int, decoding: DecodingConfig) -> None:
    memory.check(
        height=height,
        width=width,
        multiple=engine.size_multiple,
        bytes_per_pixel=engine.bytes_per_pixel(decoding) + BYTES_PER_PIXEL,
        task="mode diffc of",
    )


def _condition(engine: Engine, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float32]:
    """Return the condition of the symbols [h, w, C] that a file holds.

    Raises:
        UserError: The model is compiled.
    """
    if engine.config is None:
        raise UserError(NO_WALK)
    grid = images.pad_to_multiple(symbols[None], engine.size_multiple // engine.coder.pitch)
    return engine.condition(grid, np.array([level], np.int32))
