"""The walk of mode diffc: from noise towards a picture, in steps that encoder and decoder take alike.

The decoder takes no decision on a number that was rounded: it adds noise that integers define to a mean that the model
computes. So where a device rounds otherwise, its states differ a little, and nothing else happens.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.coding import walk
from cod_jax.coding.reverse_channel import Layout, choose, draw, projections, start_noise
from cod_jax.diffusion import diffc
from cod_jax.errors import UserError

Values = npt.NDArray[np.float32]
Estimate = Callable[[Values, float], Values]
"""Returns what a model expects at the end of the path from x_t at the timestep t."""

# Chunks of 8 bits among 2^12 candidates. With four times as many of each, files get 2 % shorter and encoding takes four
# times as long.
BITS, PADDING = 12, 4
# With so few candidates the mean of the samples would be 0.9 of what it should be; with this it is right, and they vary
# by 0.6 instead of 1 in one of the directions of each chunk.
TILT = 1.32
INDEX_BITS = BITS - PADDING + math.log2(BITS - PADDING + 1)
"""About what an index takes in a file, D + log2(D + 1) for a divergence of D bits."""
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


def layout_for(num_values: int, step_bits: float) -> Layout:
    """Return the layout of a state of so many values, such that a step takes about so many bits of the file."""
    num_chunks = min(max(round(step_bits / INDEX_BITS), 1), num_values, walk.MAX_CHUNKS)
    return Layout(num_values, num_chunks, BITS)


def start(shape: tuple[int, ...]) -> State:
    """Return the state of noise alone, from which all walks over values of this shape start."""
    return State(start_noise(math.prod(shape)).reshape(shape), 0.0)


def estimate_at(estimate: Estimate, state: State) -> Values:
    """Return what a model expects at the end, seen from a state."""
    x_t = state.values * np.float32(diffc.flow_scale(state.snr_squared))
    return estimate(x_t, diffc.flow_time(state.snr_squared))


def steps_towards(target: Values, estimate: Estimate, layout: Layout) -> Iterator[Step]:
    """Yield the steps of an encoder, each with about D bits of divergence for each chunk, to the end of the schedule.

    Args:
        target: The values of the picture [1, h, w, c].
        estimate: The model.
        layout: How the values are divided.
    """
    wanted_bits = (BITS - PADDING) * layout.num_chunks
    state, units = start(target.shape), 0
    for number in range(1, walk.MAX_STEPS + 1):
        expected = estimate_at(estimate, state)
        error = target - expected
        bits_per_unit = diffc.kl_bits(float(np.sum(error**2, dtype=np.float64)), 0.0, walk.SNR_UNIT)
        grade = walk.nearest_grade(wanted_bits / max(bits_per_unit, 1e-30))
        units += walk.step_length(grade)
        if units > walk.END_OF_SCHEDULE:
            return
        after = units * walk.SNR_UNIT
        mean = error.reshape(-1) * np.float32(diffc.shift_scale(state.snr_squared, after))
        indices = choose(layout, number, mean, tilt=TILT)
        state = _advance(state, expected, after, draw(layout, number, indices))
        yield Step(grade, indices, state)


def written(coded: list[Step]) -> walk.Walk:
    """Return what a file holds of the steps of an encoder."""
    check = walk.state_check(_projections(coded[-1].after))
    grades, indices = tuple(step.grade for step in coded), np.stack([step.indices for step in coded])
    return walk.Walk(BITS, PADDING, grades, indices, check)


def states(shape: tuple[int, ...], estimate: Estimate, steps: walk.Walk) -> Iterator[State]:
    """Yield the start of a walk and the state after each of its steps, as the encoder had them.

    Args:
        shape: Shape of the values [1, h, w, c].
        estimate: The model.
        steps: The steps of a file.

    Raises:
        UserError: The file's layout does not go with the size of the picture.
    """
    state = start(shape)
    yield state
    size = state.values.size
    if steps.num_chunks > size:
        raise UserError(f"it divides {size} values into {steps.num_chunks} chunks, so it is damaged; get it again")
    layout = Layout(size, steps.num_chunks, steps.bits)
    for number, (indices, units) in enumerate(zip(steps.indices, steps.snr_units()[1:], strict=True), 1):
        noise = draw(layout, number, indices)
        state = _advance(state, estimate_at(estimate, state), units * walk.SNR_UNIT, noise)
        yield state


def verify(steps: walk.Walk, state: State) -> None:
    """Refuse a last state that is not the encoder's.

    Raises:
        UserError: Its projections differ by more than rounding elsewhere explains.
    """
    distance = walk.check_distance(steps.check, _projections(state))
    if not distance <= _TOLERANCE:
        raise UserError(
            f"the steps lead to another state than the encoder's: a projection differs by {distance / 32:.3g}, and up "
            f"to {_TOLERANCE / 32:.3g} is rounding. The file is damaged, or this device computes otherwise than the "
            "encoder's; get the file again, or decompress on a device of that kind"
        )


def _advance(state: State, expected: Values, after: float, noise: Values) -> State:
    """Return the next state; on the host, where encoder and decoder round in the same way."""
    step = diffc.transition(state.snr_squared, after)
    mean = np.float32(step.estimate) * expected + np.float32(step.state) * state.values
    moved = mean + np.float32(step.std) * noise.reshape(mean.shape)
    return State(moved.astype(np.float32, copy=False), after)


def _projections(state: State) -> npt.NDArray[np.float64]:
    return projections(state.values.reshape(-1), walk.CHECK_BYTES)
