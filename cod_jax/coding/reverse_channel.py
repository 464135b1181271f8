"""Reverse channel coding: the number of a shared random candidate stands for a sample (Li and El Gamal 2018).

Encoder and decoder draw the same candidates from a counter-based generator. The encoder picks one that is distributed
like a normal vector with the mean it wants, and sends its number. docs/bitstream.md defines the candidates.
"""

# jax.numpy is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from cod_jax.coding.gaussian import UNIT, host_words, normal_from_word, threefry2x32, word, words

# Second words of keys; codebooks have the numbers below.
SIGNS, MASKS, ROTATION, ORDER, PROJECTION = (2**31 + number for number in range(5))
# Up to 2^8 candidates every chunk has its own; of more, so many chunks share a codebook that random numbers cost no
# more than those.
OWN_BITS = 8
# Candidates and values of each that are computed at once.
_ROWS, _VALUES = 256, 4096


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the values of a picture are divided; the same in every step.

    Attributes:
        num_values: Values of the state.
        num_chunks: Chunks that are coded one by one, at most one per value.
        bits: There are 2^bits candidates for each chunk.
    """

    num_values: int
    num_chunks: int
    bits: int

    @property
    def length(self) -> int:
        """Values of the longest chunk; value j of chunk c is at position j num_chunks + c."""
        return -(-self.num_values // self.num_chunks)

    @property
    def sharing(self) -> int:
        """Chunks that share a codebook."""
        return 2 ** max(0, self.bits - OWN_BITS)


def start_noise(num_values: int) -> Float[np.ndarray, " N"]:
    """Return the normal numbers from which the first step starts, float32."""
    return np.asarray(_start(num_values=num_values))


def draw(layout: Layout, step: int, indices: Int[np.ndarray, " C"]) -> Float[np.ndarray, " N"]:
    """Return the candidate of each chunk as one vector of normal numbers, float32, equal on every device.

    Args:
        layout: How the values are divided.
        step: Number of the step, from 1.
        indices: Candidate of each chunk, from 0.
    """
    rows = indices.astype(np.uint32) ^ _masks(layout, step)
    of_positions = np.asarray(_draw(word(step), jnp.asarray(rows), layout=layout))
    drawn = np.empty(layout.num_values, np.float32)
    drawn[_order(layout.num_values)] = np.roll(of_positions, _rotation(layout, step))
    return drawn


def choose(layout: Layout, step: int, mean: Float[np.ndarray, " N"], *, tilt: float = 1.0) -> Int[np.ndarray, " C"]:
    """Return for each chunk the number of a candidate that is distributed like mean + noise of variance 1.

    The number is that of the first arrival (Li and El Gamal 2018, "Strong functional representation lemma"): the
    candidate with the smallest arrival time over its likelihood ratio. Equal arguments give equal numbers. The sample
    is exact with many more than 2^KL candidates. With fewer its mean is too small, and a tilt above 1 makes up for it.

    Args:
        layout: How the values are divided.
        step: Number of the step, from 1.
        mean: Wanted mean, in units of the noise.
        tilt: Power to which the likelihood ratio is raised.

    Returns:
        int32, 0 to 2^bits - 1.
    """
    by_position = np.roll(mean[_order(layout.num_values)], -_rotation(layout, step))
    signs = np.asarray(_signs(word(step), num_values=layout.num_values))
    whole = -(-layout.length // 2) * 2
    values = min(_VALUES, whole)
    length = -(-whole // values) * values
    shifts = np.zeros(length * layout.num_chunks, np.float32)
    shifts[: layout.num_values] = by_position * signs * np.float32(tilt * UNIT)
    shifts = shifts.reshape(length, layout.num_chunks)
    masks, shared = _masks(layout, step), min(layout.sharing, layout.num_chunks)
    arrivals = np.random.Generator(np.random.Philox(key=step))
    chosen = np.empty(layout.num_chunks, np.int32)
    for book, start in enumerate(range(0, layout.num_chunks, layout.sharing)):
        here = slice(start, start + layout.sharing)
        num_here = len(chosen[here])
        of_book = np.zeros((length, shared), np.float32)
        of_book[:, :num_here] = shifts[:, here]
        times = np.cumsum(arrivals.standard_exponential((2**layout.bits, num_here)), axis=0)
        rows = np.arange(2**layout.bits, dtype=np.uint32)[:, None] ^ masks[None, here]
        log_times = np.full((2**layout.bits, shared), 0.0, np.float32)
        log_times[:, :num_here] = np.log(np.take_along_axis(times, rows.astype(np.int64), axis=0))
        pieces = of_book.reshape(-1, values // 2, 2, shared)
        best = np.asarray(_best(word(step), word(book), jnp.asarray(pieces), jnp.asarray(log_times)))
        chosen[here] = best[:num_here].astype(np.uint32) ^ masks[here]
    return chosen


def projections(state: Float[np.ndarray, " N"], number: int) -> Float[np.ndarray, " P"]:
    """Return projections of a state on vectors of random signs, divided by the root of its length, float64.

    They have about the variance of the state's values. Two states that differ by d (root mean square) differ by about d
    in each projection.
    """
    found = [
        np.sum(np.where(host_words(0, PROJECTION + row, state.size) >> 31, -state, state), dtype=np.float64)
        for row in range(number)
    ]
    return np.array(found) / np.sqrt(state.size)


@functools.lru_cache(maxsize=2)
def _order(num_values: int) -> Int[np.ndarray, " N"]:
    """Return the value at each position: all values in the order of their random words."""
    return np.argsort(host_words(0, ORDER, num_values), kind="stable")


def _masks(layout: Layout, step: int) -> UInt32[np.ndarray, " C"]:
    """Return what turns the number of a candidate into its row in the codebook, by exclusive or.

    Small numbers are chosen more often. So that chunks with one codebook do not take the same rows, each has a mask.
    """
    return host_words(step, MASKS, layout.num_chunks) & np.uint32(2**layout.bits - 1)


def _rotation(layout: Layout, step: int) -> int:
    """Return by how much the order is rotated, so that chunks hold other values in every step."""
    return int(host_words(step, ROTATION, 1)[0]) % layout.num_values


@functools.partial(jax.jit, static_argnames="num_values")
def _start(*, num_values: int) -> Float[Array, " N"]:
    return normal_from_word(words(word(0), word(0), word(0), num_values)).astype(jnp.float32) * np.float32(UNIT)


@functools.partial(jax.jit, static_argnames="num_values")
def _signs(step: UInt32[Array, ""], *, num_values: int) -> Float[Array, " N"]:
    found = words(step, word(SIGNS), word(0), num_values)
    return jnp.where(found >> np.uint32(31), np.float32(-1), np.float32(1))


@functools.partial(jax.jit, static_argnames="layout")
def _draw(step: UInt32[Array, ""], rows: UInt32[Array, " C"], *, layout: Layout) -> Float[Array, " N"]:
    books = jnp.arange(layout.num_chunks, dtype=jnp.uint32) // np.uint32(layout.sharing)
    numbers = normal_from_word(words(step, books, rows, layout.length)).astype(jnp.float32) * np.float32(UNIT)
    return numbers.T.reshape(-1)[: layout.num_values] * _signs(step, num_values=layout.num_values)


@jax.jit
def _best(
    step: UInt32[Array, ""],
    book: UInt32[Array, ""],
    shifts: Float[Array, "pieces half 2 S"],
    log_times: Float[Array, "K S"],
) -> Int[Array, " S"]:
    """Return the row of the codebook with the smallest log arrival time less log likelihood ratio, for each chunk.

    The part of the ratio that is the same for all candidates is left out. Memory is bounded: one block of candidates
    and values at a time.
    """
    num_pieces, half, _, num_chunks = shifts.shape
    num_rows = log_times.shape[0]
    block_rows = min(_ROWS, num_rows)

    def block(number: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first = number * block_rows
        rows = first.astype(jnp.uint32) + jnp.arange(block_rows, dtype=jnp.uint32)

        def piece(place: jax.Array, scores: jax.Array) -> jax.Array:
            pairs = place.astype(jnp.uint32) * np.uint32(half) + jnp.arange(half, dtype=jnp.uint32)
            counter = (jnp.broadcast_to(rows[:, None], (block_rows, half)), jnp.broadcast_to(pairs, (block_rows, half)))
            for of_pair, random in enumerate(threefry2x32((step, book), counter)):
                numbers = normal_from_word(random).astype(jnp.float32)
                scores = scores + jnp.dot(numbers, shifts[place, :, of_pair], precision=jax.lax.Precision.HIGHEST)
            return scores

        scores = jax.lax.fori_loop(0, num_pieces, piece, jnp.zeros((block_rows, num_chunks), jnp.float32))
        costs = jax.lax.dynamic_slice_in_dim(log_times, first, block_rows) - scores
        least, place = found
        here = jnp.min(costs, axis=0)
        row = first + jnp.argmin(costs, axis=0).astype(jnp.int32)
        return jnp.minimum(least, here), jnp.where(here < least, row, place)

    start = (jnp.full(num_chunks, jnp.inf, jnp.float32), jnp.zeros(num_chunks, jnp.int32))
    return jax.lax.fori_loop(0, num_rows // block_rows, block, start)[1]
