"""Mode diffc: a file holds the symbols of a picture, and then steps of the reverse diffusion towards it.

Each step sends a sample of the true posterior by the number of a shared random candidate (Vonderfecht and Liu 2025,
"Lossy compression with pretrained diffusion models"). docs/diffc.md explains it, docs/bitstream.md the files.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax import images
from cod_jax.codec import checks, rates
from cod_jax.codec.engine import NO_WALK, Engine
from cod_jax.coding import walk
from cod_jax.coding.stream import CodedPicture, checked_quality
from cod_jax.diffusion import diffc
from cod_jax.errors import UserError
from cod_jax.images import ImageSource
from cod_jax.model_folder.decoding import DecodingConfig

if TYPE_CHECKING:
    from cod_jax.codec.codec import Codec
    from cod_jax.coding.reverse_channel import Layout

# Chunks of 8 bits among 2^12 candidates. With four times as many of each, files get 2 % shorter and encoding takes four
# times as long.
BITS, PADDING = 12, 4
# With so few candidates the mean of the samples would be 0.9 of what it should be; with this it is right, and they vary
# by 0.6 instead of 1 in one of the directions of each chunk.
TILT = 1.32
# About what an index takes in a file: D + log2(D + 1).
INDEX_BITS = BITS - PADDING + math.log2(BITS - PADDING + 1)
# Steps over which a given rate is spread; with fewer, the prior is worse, and more take longer.
NUM_STEPS = 48
# Bits per pixel of a step where no rate is given.
_STEP_BITS_PER_PIXEL = 0.0005
# Pixels per side of a cell of the condition.
CELL = 16
# The largest difference between the projections of encoder and decoder, in 1/32: half a unit of rounding, and one.
_TOLERANCE = 1.5


class State(NamedTuple):
    """Where a walk stands.

    Attributes:
        values: The state x [1, h, w, c], float32, of variance about 1.
        snr_squared: Its signal-to-noise ratio; 0 before the first step.
    """

    values: npt.NDArray[np.float32]
    snr_squared: float


class Step(NamedTuple):
    """A coded step: its grade, the index of each chunk, and the state after it."""

    grade: int
    indices: npt.NDArray[np.int32]
    after: State


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
    from cod_jax.coding.reverse_channel import Layout

    if (steps is None) == (bpp is None):
        raise UserError("mode diffc takes either steps or bpp; give one of them")
    if bpp is not None:
        rates.check_bits_per_pixel(bpp)
    elif isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= walk.MAX_STEPS:
        raise UserError(f"expected steps to be a whole number from 1 to {walk.MAX_STEPS}, got {steps!r}")
    level = checked_quality(1 if quality is None else quality, codec.num_levels) - 1
    checks.check_source(image)
    pixels = images.to_uint8_rgb(image, check_size=codec.check_size)
    height, width, _ = pixels.shape
    target = codec.engine.values(images.pad_to_multiple(pixels[None], codec.engine.size_multiple))
    symbols = codec.encode(pixels, level=level)
    alone = codec.engine.coder.encode(symbols, height=height, width=width, level=level)

    def write(coded: list[Step]) -> bytes:
        indices = np.stack([step.indices for step in coded])
        check = walk.state_check(_projections(coded[-1].after))
        found = walk.Walk(BITS, PADDING, tuple(step.grade for step in coded), indices, check)
        return codec.engine.coder.encode(symbols, height=height, width=width, level=level, steps=found)

    max_bytes = None if bpp is None else int(bpp * height * width / 8)
    step_bits = _STEP_BITS_PER_PIXEL * height * width
    if max_bytes is not None:
        step_bits = (max_bytes - len(alone)) * 8 / NUM_STEPS
    num_chunks = round(step_bits / INDEX_BITS)
    layout = Layout(target.size, min(max(num_chunks, 1), target.size, walk.MAX_CHUNKS), BITS)
    coded: list[Step] = []
    data = b""
    for step in steps_towards(codec.engine, layout, target, _condition(codec.engine, symbols, level)):
        coded.append(step)
        if max_bytes is None and len(coded) < (steps or 0):
            continue
        before, data = data, write(coded)
        if max_bytes is None:
            return data
        if len(data) > max_bytes:
            if before:
                return before
            raise UserError(
                f"expected at least {8 * len(data) / (height * width):.4g} bits per pixel, which the first step of "
                f"this picture takes, got {bpp}; allow more"
            )
    reached = 8 * len(write(coded) if coded else alone) / (height * width)
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
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen <= number:
        raise UserError(f"expected coded_steps from 0 to {number}, the steps of this file, got {coded_steps!r}")
    condition = _condition(engine, picture.symbols, picture.level)
    path = states(engine, steps, condition)
    shown = last = next(path)
    for place, last in enumerate(path, 1):
        shown = last if place == chosen else shown
    _verify(steps, last)
    x_t = shown.values * np.float32(diffc.flow_scale(shown.snr_squared))
    levels = np.array([picture.level], np.int32)
    return engine.finish(x_t, diffc.flow_time(shown.snr_squared), condition, levels, decoding)[0]


def states(engine: Engine, steps: walk.Walk, condition: npt.NDArray[np.float32]) -> Iterator[State]:
    """Yield the start of a walk and the state after each of its steps, as the encoder had them.

    Args:
        engine: The engine of the model.
        steps: The steps of a file.
        condition: The condition of its symbols [1, H / 16, W / 16, hidden].

    Raises:
        UserError: The file's layout does not go with the size of the picture.
    """
    from cod_jax.coding.reverse_channel import Layout, draw

    state = _start(engine, condition)
    yield state
    if steps.num_chunks > state.values.size:
        raise UserError(
            f"it divides {state.values.size} values into {steps.num_chunks} chunks, so it is damaged; get it again"
        )
    layout = Layout(state.values.size, steps.num_chunks, steps.bits)
    units = steps.snr_units()
    for number, indices in enumerate(steps.indices, 1):
        estimate = _estimate(engine, state, condition)
        state = _advance(state, estimate, units[number] * walk.SNR_UNIT, draw(layout, number, indices))
        yield state


def steps_towards(
    engine: Engine, layout: "Layout", target: npt.NDArray[np.float32], condition: npt.NDArray[np.float32]
) -> Iterator[Step]:
    """Yield the steps of an encoder towards the values [1, h, w, c], until the end of the schedule."""
    from cod_jax.coding.reverse_channel import choose, draw

    wanted_bits = (BITS - PADDING) * layout.num_chunks
    state, units = _start(engine, condition), 0
    for number in range(1, walk.MAX_STEPS + 1):
        estimate = _estimate(engine, state, condition)
        error = target - estimate
        bits_per_unit = diffc.kl_bits(float(np.sum(error**2, dtype=np.float64)), 0.0, walk.SNR_UNIT)
        grade = walk.nearest_grade(wanted_bits / max(bits_per_unit, 1e-30))
        units += walk.step_length(grade)
        if units > walk.END_OF_SCHEDULE:
            return
        after = units * walk.SNR_UNIT
        mean = error.reshape(-1) * np.float32(diffc.shift_scale(state.snr_squared, after))
        indices = choose(layout, number, mean, tilt=TILT)
        state = _advance(state, estimate, after, draw(layout, number, indices))
        yield Step(grade, indices, state)


def _condition(engine: Engine, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float32]:
    """Return the condition of the symbols [h, w, C] that a file holds."""
    if engine.config is None:
        raise UserError(NO_WALK)
    grid = images.pad_to_multiple(symbols[None], engine.size_multiple // engine.coder.pitch)
    return engine.condition(grid, np.array([level], np.int32))


def _start(engine: Engine, condition: npt.NDArray[np.float32]) -> State:
    from cod_jax.coding.reverse_channel import start_noise

    shape = engine.config.values_shape((1, *(CELL * side for side in condition.shape[1:3]), 3))
    return State(start_noise(int(np.prod(shape))).reshape(shape), 0.0)


def _estimate(engine: Engine, state: State, condition: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    x_t = state.values * np.float32(diffc.flow_scale(state.snr_squared))
    return engine.estimate(x_t, diffc.flow_time(state.snr_squared), condition)


def _advance(state: State, estimate: npt.NDArray[np.float32], after: float, noise: npt.NDArray[np.float32]) -> State:
    """Return the next state; on the host, where encoder and decoder round in the same way."""
    step = diffc.transition(state.snr_squared, after)
    mean = np.float32(step.estimate) * estimate + np.float32(step.state) * state.values
    moved = mean + np.float32(step.std) * noise.reshape(mean.shape)
    return State(moved.astype(np.float32, copy=False), after)


def _verify(steps: walk.Walk, state: State) -> None:
    """Refuse a state that is not the encoder's.

    Raises:
        UserError: Its projections differ by more than rounding elsewhere explains.
    """
    distance = walk.check_distance(steps.check, _projections(state))
    if not distance <= _TOLERANCE:
        raise UserError(
            f"the steps lead to another state than the encoder's: a projection differs by {distance / 32:.3g}, and up "
            f"to {_TOLERANCE / 32:.3g} is rounding. The file is damaged, or this device computes otherwise than the "
            "encoder's; decompress on a device of that kind"
        )


def _projections(state: State) -> npt.NDArray[np.float64]:
    from cod_jax.coding.reverse_channel import projections

    return projections(state.values.reshape(-1), walk.CHECK_BYTES)
