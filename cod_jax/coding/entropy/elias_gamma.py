"""Elias gamma codes of many numbers, in evenly likely bits: for what tables leave out.

A number of b + 1 bits takes b ones, a zero, and its b lower bits; after `MAX_EXTRA_BITS` ones there is no zero. The
numbers are coded together: first the first bit of each, then the second of each that has one, and so on; then the lower
bits by their place, the highest first.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cod_jax.coding.range_coder import TOTAL, RangeDecoder

# Bits of a number after its first. Symbols and predictions are within 2^17.
MAX_EXTRA_BITS = 18
_EVEN = TOTAL // 2


def bits_of_numbers(
    numbers: npt.NDArray[np.integer],
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Yield the bits of numbers [n], each from 1 to 2^18 - 1, in the order of coding.

    With them come the places of their numbers, and the probability that each is 1.
    """
    if not numbers.size:
        return
    # The exponent of a float64 is exact for integers.
    extra = np.frexp(numbers.astype(np.float64))[1] - 1
    most = int(extra.max())
    for num in range(min(most + 1, MAX_EXTRA_BITS)):
        still_open = np.flatnonzero(extra >= num)
        yield still_open, (extra[still_open] > num).astype(np.int32), _even(still_open.size)
    for shift in range(most - 1, -1, -1):
        longer = np.flatnonzero(extra > shift)
        yield longer, (numbers[longer] >> shift & 1).astype(np.int32), _even(longer.size)


def decode_numbers(decoder: RangeDecoder, number: int) -> npt.NDArray[np.int32]:
    """Read so many numbers; of damaged data they may be up to 2^19 - 1."""
    extra = np.zeros(number, np.int32)
    for num in range(MAX_EXTRA_BITS):
        still_open = np.flatnonzero(extra == num)
        if not still_open.size:
            break
        extra[still_open] += decoder.decode_bits(_even(still_open.size))
    numbers = np.ones(number, np.int32)
    for shift in range(int(extra.max(initial=0)) - 1, -1, -1):
        longer = np.flatnonzero(extra > shift)
        numbers[longer] = 2 * numbers[longer] + decoder.decode_bits(_even(longer.size))
    return numbers


def _even(number: int) -> npt.NDArray[np.int32]:
    return np.full(number, _EVEN, np.int32)
