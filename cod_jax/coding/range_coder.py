"""A range coder whose probabilities are integers out of 2^16, and whose end costs less than a byte.

The coder is that of the library constriction, with 32-bit words and probabilities of 24 bits. Counts out of 2^16 are
exact as floating-point numbers, so the same symbols give the same bytes everywhere.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError

TOTAL_BITS = 16
TOTAL = 2**TOTAL_BITS
_WORD_BYTES = 4
# The state of the coder: two words.
_STATE_BITS = 64


# Grids of at most this many symbols are decoded in a few hundredths of a second, even from a few bytes.
_FEW_SYMBOLS = 2**17


def least_bytes(num_symbols: int, likeliest: npt.NDArray[np.integer]) -> int:
    """Return how many bytes a payload has at least, in integers, so that it is the same on every machine.

    A symbol of probability p takes -log2(p) bits, which is more than 1 - p. What is coded is cut off after its last
    byte that is not zero, and may so become shorter than its probability says; then zeros are added up to this length.
    So a few bytes cannot stand for millions of symbols.

    Args:
        num_symbols: Symbols coded by each table.
        likeliest: The largest probability in each table, in units of 2^-16 [n].

    Returns:
        The bytes; 0 for few symbols.
    """
    if num_symbols * likeliest.size <= _FEW_SYMBOLS:
        return 0
    return num_symbols * int((TOTAL - likeliest.astype(np.int64)).sum()) // (8 * TOTAL)


def bit_costs(bits: npt.NDArray[np.integer], probabilities: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the bits that it takes to code bits [n], -log2 of the probability of each; see `encode_bits`."""
    ones = probabilities.astype(np.int32)
    return -np.log2(np.where(bits, ones, TOTAL - ones) / TOTAL)


class RangeEncoder:
    """Codes symbols into bytes, first in, first out."""

    def __init__(self) -> None:
        queue, self._models = _constriction()
        self._encoder = queue.RangeEncoder()

    def encode_bits(self, bits: npt.NDArray[np.integer], probabilities: npt.NDArray[np.integer]) -> None:
        """Code bits, each with a probability of its own.

        Args:
            bits: 0 or 1 [n].
            probabilities: That of a 1 in units of 2^-16, 1 to 65535 [n].
        """
        if bits.size:
            self._encoder.encode(bits.astype(np.int32), self._models.Bernoulli(perfect=False), _exact(probabilities))

    def encode_symbols(self, symbols: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> None:
        """Code symbols that all have the same distribution.

        Args:
            symbols: From 0 to len(counts) - 1 [n].
            counts: Probabilities in units of 2^-16, each at least 1, together 65536.
        """
        if symbols.size and counts.size > 1:
            self._encoder.encode(symbols.astype(np.int32), self._models.Categorical(_exact(counts), perfect=False))

    def finish(self) -> bytes:
        """Return the shortest bytes that stand for what was coded; the reader takes zeros for what follows them.

        Any number in the coder's last interval [low, low + width) would do. Of these the one with the most zeros at its
        end is taken, and its zeros are left out.
        """
        num_words, (lower, width) = self._encoder.pos()
        words = self._encoder.get_compressed().astype(">u4")
        # The library ends with a point of the interval in as many words as that takes. Carries have been done.
        shift = _STATE_BITS - 8 * _WORD_BYTES * (len(words) - num_words)
        point = int.from_bytes(words.tobytes(), "big") << shift
        low = point - (point - lower) % 2**_STATE_BITS
        zeros = next(n for n in range(_STATE_BITS, -1, -8) if -(-low >> n) << n < low + width)
        rounded = -(-low >> zeros) << zeros
        return rounded.to_bytes((num_words * _WORD_BYTES * 8 + _STATE_BITS) // 8, "big").rstrip(b"\0")


class RangeDecoder:
    """Undoes `RangeEncoder`: the same calls in the same order, with the same probabilities.

    Args:
        data: What `RangeEncoder.finish` returned.
        again: Another encoder, which codes everything that is read.
    """

    def __init__(self, data: bytes, again: RangeEncoder | None = None) -> None:
        queue, self._models = _constriction()
        words = np.frombuffer(data + bytes(-len(data) % _WORD_BYTES), ">u4").astype(np.uint32)
        self._decoder = queue.RangeDecoder(words)
        self._again = again

    def decode_bits(self, probabilities: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Read bits int32 [n]; see `RangeEncoder.encode_bits`.

        Raises:
            UserError: No bits can have been coded so.
        """
        if not probabilities.size:
            return np.zeros(0, np.int32)
        bits = self._decode(self._models.Bernoulli(perfect=False), _exact(probabilities))
        if self._again:
            self._again.encode_bits(bits, probabilities)
        return bits

    def decode_symbols(self, num_symbols: int, counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Read symbols int32 [n]; see `RangeEncoder.encode_symbols`.

        Raises:
            UserError: No symbols can have been coded so.
        """
        if not num_symbols or counts.size == 1:
            return np.zeros(num_symbols, np.int32)
        symbols = self._decode(self._models.Categorical(_exact(counts), perfect=False), num_symbols)
        if self._again:
            self._again.encode_symbols(symbols, counts)
        return symbols

    def _decode(self, *arguments: Any) -> npt.NDArray[np.int32]:
        try:
            return self._decoder.decode(*arguments)
        except AssertionError as error:
            raise UserError("the coded symbols are damaged; get the file again") from error


def _exact(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    return counts / np.float64(TOTAL)


def _constriction() -> tuple[Any, Any]:
    # Files without entropy coding are read and written without the library.
    import constriction  # pyright: ignore[reportMissingTypeStubs]

    # Its modules are attributes of a compiled one, which type checkers do not see.
    stream: Any = vars(constriction)["stream"]
    return stream.queue, stream.model
