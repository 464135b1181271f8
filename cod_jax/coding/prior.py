"""The prior of a model's symbols: frozen integer tables that say how probable each symbol is.

There are two: how often each symbol occurs (mode "static"), and how its bits depend on the symbols around it (mode
"context"). Everything between the tables and the coder is integer arithmetic, so that a file written on one machine is
read on any other.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.coding import context
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder
from cod_jax.errors import UserError

# The tables of a pair of symbols grow with the square of the codebook; at 8 bits they are 3 megabytes.
MAX_CONTEXT_BITS = 8
# Logits are in units of 1/256 of a natural one, and limited to 12 of those.
LOGIT_UNIT = 256
LOGIT_LIMIT = 12 * LOGIT_UNIT


@dataclasses.dataclass(frozen=True)
class ContextTables:
    """How the bits of a symbol depend on its four neighbours.

    A symbol is coded as the `bits` bits of its code, the highest first. The bits coded so far, after a 1, number a node
    of a binary tree. The logit of a 1 at a node is the sum of the node's bias and one number for each neighbour.

    Attributes:
        codes: Code of each symbol, a permutation of 0 to 2^bits - 1 in which similar symbols are near each other [K].
        bias: Logits of the nodes 1 to 2^bits - 1 for each class of batches [classes, K]; those of node 0 are 0.
        pair: What each neighbour adds to them [classes, neighbours, K + 1, K]; the last symbol is none, at a border.
        probabilities: Probability of a 1 in units of 2^-16 for each logit from -LOGIT_LIMIT to LOGIT_LIMIT - 1, so that
            no machine has to compute an exponential.
    """

    codes: npt.NDArray[np.int32]
    bias: npt.NDArray[np.int16]
    pair: npt.NDArray[np.int16]
    probabilities: npt.NDArray[np.uint16]


@dataclasses.dataclass(frozen=True)
class SymbolPrior:
    """The tables of one model.

    Attributes:
        counts: How often each symbol occurs, in units of 2^-16: each at least 1, together 65536 [K].
        context: The tables of mode "context"; None where there are none.
    """

    counts: npt.NDArray[np.int32]
    context: ContextTables | None = None

    @property
    def bits(self) -> int:
        """Bits of a symbol."""
        return int(self.counts.size).bit_length() - 1

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tables by name; `from_arrays` undoes it."""
        return {"counts": self.counts, **(vars(self.context) if self.context else {})}

    def fingerprint(self) -> str:
        """Name the prior by its content; see `tables_fingerprint`."""
        return tables_fingerprint(self.to_arrays())


def tables_fingerprint(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 of name, shape, type and values of every table, in 64 hex digits."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(json.dumps([name, list(array.shape), array.dtype.name]).encode())
        digest.update(stored.tobytes())
    return digest.hexdigest()


def table_layout(bits: int, *, with_context: bool) -> dict[str, tuple[tuple[int, ...], type[np.integer]]]:
    """Shape and type of each table by name, of the prior for a codebook of 2^bits symbols."""
    size = 2**bits
    layout: dict[str, tuple[tuple[int, ...], type[np.integer]]] = {"counts": ((size,), np.int32)}
    if with_context:
        layout |= {
            "codes": ((size,), np.int32),
            "bias": ((context.NUM_CLASSES, size), np.int16),
            "pair": ((context.NUM_CLASSES, context.NUM_NEIGHBOURS, size + 1, size), np.int16),
            "probabilities": ((2 * LOGIT_LIMIT,), np.uint16),
        }
    return layout


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]], bits: int) -> SymbolPrior:
    """Make a prior of tables from a stranger.

    Args:
        arrays: Tables by name, as `SymbolPrior.to_arrays` gives them.
        bits: Bits of a symbol of the model they are for.

    Raises:
        UserError: Tables are missing, unknown, of another shape or type, or hold numbers that cannot be coded with.
    """
    with_context = set(arrays) != {"counts"}
    layout = table_layout(bits, with_context=with_context and bits <= MAX_CONTEXT_BITS)
    given = {name: (array.shape, array.dtype.type) for name, array in arrays.items()}
    if given != layout:
        wrong = sorted(name for name in {*given, *layout} if given.get(name) != layout.get(name))
        raise UserError(
            f"the tables {', '.join(wrong)} of the prior are missing, unknown, or not those of symbols of {bits} bits"
        )
    counts = arrays["counts"]
    if counts.min() < 1 or int(counts.sum(dtype=np.int64)) != TOTAL:
        raise UserError(f"the counts of the prior are not positive numbers that add up to {TOTAL}")
    if not with_context:
        return SymbolPrior(counts)
    tables = ContextTables(**{name: array for name, array in arrays.items() if name != "counts"})
    if sorted(tables.codes.tolist()) != list(range(2**bits)):
        raise UserError("the codes of the prior are no permutation of the symbols")
    if tables.probabilities.min() < 1:
        raise UserError("the prior holds a probability of zero")
    return SymbolPrior(counts, tables)


def encode_static(prior: SymbolPrior, symbols: npt.NDArray[np.int32]) -> bytes:
    """Code a grid of symbols [h, w] by how often each occurs."""
    encoder = RangeEncoder()
    encoder.encode_symbols(symbols.reshape(-1), prior.counts)
    return encoder.finish()


def decode_static(prior: SymbolPrior, data: bytes, *, rows: int, columns: int) -> npt.NDArray[np.int32]:
    """Undo `encode_static`.

    Raises:
        UserError: Damaged data.
    """
    return RangeDecoder(data).decode_symbols(rows * columns, prior.counts).reshape(rows, columns)


def encode_context(tables: ContextTables, symbols: npt.NDArray[np.int32]) -> bytes:
    """Code a grid of symbols [h, w] by those around each."""
    encoder = RangeEncoder()
    for bits, probabilities in _coded_bits(tables, symbols):
        encoder.encode_bits(bits, probabilities)
    return encoder.finish()


def decode_context(tables: ContextTables, data: bytes, *, rows: int, columns: int) -> npt.NDArray[np.int32]:
    """Undo `encode_context`.

    Raises:
        UserError: Damaged data.
    """
    size = tables.codes.size
    symbol_of_code = np.argsort(tables.codes).astype(np.int32)
    decoder = RangeDecoder(data)
    grid = context.with_border(np.zeros((rows, columns), np.int32), size)
    for batch in context.batches(rows, columns):
        logits = _NodeLogits(tables, grid, batch)
        nodes = logits.roots()
        for _ in range(size.bit_length() - 1):
            bits = decoder.decode_bits(logits.probabilities(nodes))
            nodes = 2 * nodes + bits
        grid[batch.place] = symbol_of_code[nodes - size].reshape(len(batch.place[0]), -1)
    return grid[:rows, :columns]


def estimated_bits(prior: SymbolPrior, symbols: npt.NDArray[np.int32]) -> dict[str, float]:
    """Bits that a grid of symbols [h, w] takes by the prior, for each mode: -log2 of its probability."""
    estimated = {"static": -float(np.log2(prior.counts[symbols] / TOTAL).sum())}
    if prior.context:
        estimated["context"] = -sum(
            float(np.log2(np.where(bits, ones, TOTAL - ones.astype(np.int32)) / TOTAL).sum())
            for bits, ones in _coded_bits(prior.context, symbols)
        )
    return estimated


def _coded_bits(
    tables: ContextTables, symbols: npt.NDArray[np.int32]
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]]:
    """Yield the bits of a grid with the probability that each is 1, in the order in which they are coded."""
    num_bits = tables.codes.size.bit_length() - 1
    grid = context.with_border(symbols, tables.codes.size)
    for batch in context.batches(*symbols.shape):
        logits = _NodeLogits(tables, grid, batch)
        codes = tables.codes[symbols[batch.place]].reshape(-1)
        nodes = logits.roots()
        for shift in range(num_bits - 1, -1, -1):
            bits = codes >> shift & 1
            yield bits, logits.probabilities(nodes)
            nodes = 2 * nodes + bits


class _NodeLogits:
    """The probabilities of the bits of one batch.

    Args:
        tables: The tables of the prior.
        grid: Symbols with a border, known where the batch has neighbours [h + 1, w + 1].
        batch: Which symbols.
    """

    def __init__(self, tables: ContextTables, grid: npt.NDArray[np.int32], batch: context.Batch) -> None:
        size = tables.codes.size
        self._bias = tables.bias[batch.kind]
        self._pair = tables.pair[batch.kind].reshape(-1)
        self._table = tables.probabilities
        # Where in `pair` the numbers of each neighbour of each symbol begin.
        self._starts = [
            (grid[place].reshape(-1) + direction * (size + 1)) * size
            for direction, place in enumerate(batch.neighbours)
        ]

    def roots(self) -> npt.NDArray[np.int32]:
        """The first node of every symbol [n]."""
        return np.ones(self._starts[0].size, np.int32)

    def probabilities(self, nodes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint16]:
        """That of a 1 at a node of each symbol, in units of 2^-16 [n]."""
        logits = self._bias[nodes].astype(np.int32)
        for starts in self._starts:
            logits += self._pair[starts + nodes]
        return self._table[np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT - 1) + LOGIT_LIMIT]
