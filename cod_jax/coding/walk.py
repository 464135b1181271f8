"""The payload of mode diffc: a picture's symbols in another mode, and the steps that the encoder walked from there.

docs/bitstream.md describes it byte by byte. Everything here is integers; neither JAX nor a model is needed.
"""

import dataclasses
import functools
import math

import numpy as np
import numpy.typing as npt

from cod_jax.coding.container import MODES, Mode
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder
from cod_jax.errors import UserError

MAX_STEPS = 1000
# Steps of the largest picture that a limit on pixels allows; smaller pictures may have more, up to `MAX_STEPS`.
STEPS_AT_THE_LIMIT = 64
MAX_CHUNKS = 2**16
CHECK_BYTES = 4
SNR_UNIT = 2.0**-20
"""The unit in which files count the signal-to-noise ratio, signal over noise in power."""
END_OF_SCHEDULE = 2**30
"""The largest ratio in those units, where the noise is 3 % of the mixture."""

# A walk has no walk inside.
_SYMBOL_MODES = MODES[: MODES.index("diffc")]
_EIGHTH = 8
_LARGEST_GRADE = _EIGHTH * 28 - 1
_GRADE_BITS = 8
# How often a grade differs from the one before by -7 to 7, behind the escape.
_CHANGES = np.array([512, 64, 64, 128, 256, 512, 2048, 11264, 27776, 15104, 5120, 1536, 640, 256, 128, 128], np.int64)
_MIDDLE = len(_CHANGES) // 2


@dataclasses.dataclass(frozen=True)
class Walk:
    """The steps of an encoder, as files hold them.

    Attributes:
        bits: There are 2^bits candidates for each chunk.
        padding: Bits of these above those that a chunk's divergence is meant to have.
        grades: Length of each step, see `step_length`.
        indices: Candidate of each chunk in each step, int32 [N, C].
        check: Check of the state after the last step, see `state_check`.
    """

    bits: int
    padding: int
    grades: tuple[int, ...]
    indices: npt.NDArray[np.int32]
    check: bytes

    @property
    def num_chunks(self) -> int:
        """Chunks of every step."""
        return self.indices.shape[1]

    def snr_units(self) -> list[int]:
        """Return the signal-to-noise ratio before the first step and after each, in units of 2^-20."""
        return [0, *np.cumsum([step_length(grade) for grade in self.grades]).tolist()]


def most_steps(*, height: int, width: int, max_pixels: int) -> int:
    """Return how many steps a picture may have, so that a few bytes of a file cannot ask for days of work.

    A step evaluates the denoiser for the whole picture, and may take less than two bits of a file.

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        max_pixels: The limit of the codec on the pixels of a picture.
    """
    return min(MAX_STEPS, max(STEPS_AT_THE_LIMIT, STEPS_AT_THE_LIMIT * max_pixels // (height * width)))


def step_length(grade: int) -> int:
    """Return by how many units a step of a grade raises the signal-to-noise ratio; eight grades double it."""
    return (_EIGHTH + grade % _EIGHTH) << grade // _EIGHTH


def nearest_grade(units: float) -> int:
    """Return the grade whose length is nearest to a number of units, in proportion; within those that there are."""
    return min(range(_LARGEST_GRADE + 1), key=lambda grade: abs(math.log(step_length(grade) / max(units, 1.0))))


def state_check(projections: npt.NDArray[np.float64]) -> bytes:
    """Return a byte for each projection of a state: its number of 1/32, from -128 to 127, and 128 more."""
    return bytes((np.clip(np.floor(projections * 32 + 0.5), -128, 127) + 128).astype(np.uint8).tolist())


def check_distance(check: bytes, projections: npt.NDArray[np.float64]) -> float:
    """Return how far the projections of a state are from those of a check, the largest difference in 1/32."""
    expected = np.frombuffer(check, np.uint8).astype(np.float64) - 128
    return float(np.max(np.abs(np.clip(projections * 32, -128, 127) - expected)))


def write_walk(mode: Mode, symbols_payload: bytes, walk: Walk) -> bytes:
    """Write the payload.

    Args:
        mode: The mode that the symbols are coded in.
        symbols_payload: Their payload.
        walk: The steps.
    """
    num_steps, num_chunks = walk.indices.shape
    head = (
        bytes([_SYMBOL_MODES.index(mode)]),
        _variable_length(len(symbols_payload)),
        symbols_payload,
        bytes([(walk.bits - 1) << 4 | walk.padding]),
        _variable_length(num_chunks),
        _variable_length(num_steps),
        walk.check,
    )
    return b"".join((*head, _encode(walk).ljust(_least_bytes(walk.bits, walk.padding, num_steps * num_chunks), b"\0")))


def read_walk(payload: bytes) -> tuple[Mode, bytes, Walk]:
    """Undo `write_walk`: return the mode of the symbols, their payload, and the steps.

    Raises:
        UserError: No encoder writes such a payload; the message says what is wrong.
    """
    reader = _Reader(payload)
    number = reader.take(1)[0]
    if number >= len(_SYMBOL_MODES):
        raise UserError(f"its symbols are coded in mode {number}, which this cod_jax does not know; use a newer one")
    mode = _SYMBOL_MODES[number]
    symbols_payload = reader.take(reader.number(2**28))
    layout = reader.take(1)[0]
    bits, padding = (layout >> 4) + 1, layout & 15
    num_chunks, num_steps = reader.number(MAX_CHUNKS), reader.number(MAX_STEPS)
    check, data = reader.take(CHECK_BYTES), reader.rest()
    if not (padding < bits and num_chunks and num_steps):
        raise UserError("the layout of its steps is impossible, so the file is damaged; get it again")
    least = _least_bytes(bits, padding, num_steps * num_chunks)
    if len(data) < least:
        raise UserError(
            f"{len(data)} bytes cannot stand for {num_steps} steps of {num_chunks} indices, which take {least} at "
            "least; the file is cut off; get it again"
        )
    walk = _decode(data, bits, padding, num_steps, num_chunks, check)
    if walk.snr_units()[-1] > END_OF_SCHEDULE:
        raise UserError(
            f"its steps go beyond the end of the schedule, to {walk.snr_units()[-1]} of {END_OF_SCHEDULE} units; the "
            "file is damaged; get it again"
        )
    if write_walk(mode, symbols_payload, walk) != payload:
        raise UserError("no encoder writes its steps so; the file is damaged or cut off; get it again")
    return mode, symbols_payload, walk


def zipf_exponent(divergence: float) -> float:
    """Return the exponent of the prior of indices, 1 + 1 / (D + ln(e + 1) / e) for D bits (Li and El Gamal 2018)."""
    return 1 + 1 / (divergence + math.log(math.e + 1) / math.e)


@functools.lru_cache(maxsize=256)
def octave_counts(bits: int, padding: int) -> npt.NDArray[np.int64]:
    """Return the probabilities, in units of 2^-16, that an index plus one is in [2^j, 2^(j + 1)) for j = 0..bits.

    They are those of a Zipf distribution for a divergence of bits - padding, each at least 1; the largest takes what
    rounding leaves.
    """
    exponent = zipf_exponent(float(bits - padding))
    weights = np.arange(1, 2**bits + 1, dtype=np.float64) ** -exponent
    sums = np.add.reduceat(weights, 2 ** np.arange(bits + 1) - 1)
    counts = 1 + np.floor(sums / sums.sum() * (TOTAL - bits - 1)).astype(np.int64)
    counts[np.argmax(counts)] += TOTAL - counts.sum()
    return counts


def _least_bytes(bits: int, padding: int, num_indices: int) -> int:
    """Return the bytes that so many indices have at least, so that few bytes cannot ask for much work."""
    return num_indices * int(TOTAL - octave_counts(bits, padding).max()) // (8 * TOTAL)


def _encode(walk: Walk) -> bytes:
    encoder, counts = RangeEncoder(), octave_counts(walk.bits, walk.padding)
    before = None
    for grade, indices in zip(walk.grades, walk.indices, strict=True):
        change = None if before is None else grade - before + _MIDDLE
        is_near = change is not None and 0 < change < len(_CHANGES)
        if change is not None:
            encoder.encode_symbols(np.array([change if is_near else 0]), _CHANGES)
        if not is_near:
            encoder.encode_bits(_bits_of(np.array([grade]), _GRADE_BITS), _even(_GRADE_BITS))
        octaves = np.frexp((indices + 1).astype(np.float64))[1] - 1
        encoder.encode_symbols(octaves, counts)
        for octave in range(1, walk.bits):
            rest = indices[octaves == octave] + 1 - 2**octave
            encoder.encode_bits(_bits_of(rest, octave), _even(rest.size * octave))
        before = grade
    return encoder.finish()


def _decode(data: bytes, bits: int, padding: int, num_steps: int, num_chunks: int, check: bytes) -> Walk:
    decoder, counts = RangeDecoder(data), octave_counts(bits, padding)
    grades: list[int] = []
    indices = np.empty((num_steps, num_chunks), np.int32)
    for step in range(num_steps):
        change = int(decoder.decode_symbols(1, _CHANGES)[0]) if grades else 0
        grade = grades[-1] + change - _MIDDLE if change else int(_number_of(decoder, 1, _GRADE_BITS)[0])
        if not 0 <= grade <= _LARGEST_GRADE:
            raise UserError(f"step {step + 1} has the grade {grade}, beyond the schedule; the file is damaged")
        grades.append(grade)
        octaves = decoder.decode_symbols(num_chunks, counts)
        indices[step] = 2**octaves - 1
        for octave in range(1, bits):
            here = octaves == octave
            indices[step, here] += _number_of(decoder, int(here.sum()), octave)
    return Walk(bits, padding, tuple(grades), indices, check)


def _bits_of(numbers: npt.NDArray[np.integer], width: int) -> npt.NDArray[np.integer]:
    """Return the bits of numbers one after the other, the most significant first."""
    return (numbers[:, None] >> np.arange(width - 1, -1, -1) & 1).reshape(-1)


def _number_of(decoder: RangeDecoder, num_numbers: int, width: int) -> npt.NDArray[np.int32]:
    bits = decoder.decode_bits(_even(num_numbers * width)).reshape(num_numbers, width)
    return (bits << np.arange(width - 1, -1, -1, dtype=np.int32)).sum(axis=1).astype(np.int32)


def _even(number: int) -> npt.NDArray[np.int32]:
    return np.full(number, TOTAL // 2, np.int32)


def _variable_length(number: int) -> bytes:
    """Return a number in bytes of 7 bits, the least significant first; the upper bit says that more follow."""
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


class _Reader:
    """Takes the parts of a payload off its front."""

    def __init__(self, payload: bytes):
        self._payload, self._place = payload, 0

    def take(self, number: int) -> bytes:
        found = self._payload[self._place : self._place + number]
        if len(found) < number:
            raise UserError("its payload ends before its steps; the file is cut off; get it again")
        self._place += number
        return found

    def number(self, limit: int) -> int:
        found, shift = 0, 0
        while shift < 28:
            byte = self.take(1)[0]
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if found > limit:
            raise UserError(f"expected at most {limit} in its layout, got {found}; the file is damaged; get it again")
        return found

    def rest(self) -> bytes:
        return self._payload[self._place :]
