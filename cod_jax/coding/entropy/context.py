"""Mode "context": by the symbols around each.

Symbols are coded from coarse to fine. First comes the one at (0, 0); then, for spacings s = ..., 8, 4, 2, the grid of
spacing s that is known is filled up to spacing s/2 in three batches: the middle of each square from its four corners,
then the middles of the horizontal and of the vertical edges, each from its four neighbours. All symbols of a batch are
coded with one call per bit, so that a picture takes a few hundred calls however large it is.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cod_jax.coding.container import Mode
from cod_jax.coding.entropy.model import EntropyModel, Tables, check_layout
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder, bit_costs, least_bytes
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError

# The tables of a pair of symbols grow with the square of the codebook; at 8 bits they are 3 megabytes.
MAX_CONTEXT_BITS = 8
# Logits are in units of 1/256 of a natural one, and limited to 12 of those.
LOGIT_UNIT = 256
LOGIT_LIMIT = 12 * LOGIT_UNIT
NUM_NEIGHBOURS = 4
# Corners and edges, each at distances 1, 2, and 4 or more: batches of equal class share their tables.
NUM_DISTANCES = 3
NUM_CLASSES = 2 * NUM_DISTANCES


@dataclasses.dataclass(frozen=True, eq=False)
class ContextModel(EntropyModel):
    """Codes the bits of the symbols of a codebook, depending on the four neighbours of each.

    A symbol is coded as the `bits` bits of its code, the highest first. The bits coded so far, after a 1, number a node
    of a binary tree. The logit of a 1 at a node is the sum of the node's bias and one number for each neighbour.

    Attributes:
        codes: Code of each symbol, a permutation of 0 to 2^bits - 1 in which similar symbols are near each other [K].
        bias: Logits of the nodes 1 to 2^bits - 1 for each class of batches [classes, K]; those of node 0 are 0.
        pair: What each neighbour adds to them [classes, neighbours, K + 1, K]; the last symbol is none, at a border.
        probabilities: Probability of a 1 in units of 2^-16 for each logit from -LOGIT_LIMIT to LOGIT_LIMIT - 1, so that
            no machine has to compute an exponential.
    """

    mode: ClassVar[Mode] = "context"
    codes: npt.NDArray[np.int32]
    bias: npt.NDArray[np.int16]
    pair: npt.NDArray[np.int16]
    probabilities: npt.NDArray[np.uint16]

    @classmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "ContextModel | None":
        """Return the model of symbols of a codebook of at most 2^8; see `EntropyModel.from_tables`."""
        names = [field.name for field in dataclasses.fields(cls)]
        if symbols.bits is None or symbols.bits > MAX_CONTEXT_BITS or not set(names) & set(tables):
            return None
        check_layout(tables, table_layout(symbols.size), symbols)
        own = {name: tables[name] for name in names}
        if sorted(own["codes"].tolist()) != list(range(symbols.size)):
            raise UserError("expected the codes of the prior to be a permutation of the symbols")
        if own["probabilities"].min() < 1:
            raise UserError("the prior holds a probability of zero")
        return cls(**own)

    @classmethod
    def largest_tables(cls, symbols: SymbolFormat) -> dict[str, int]:
        """Return the sizes of the tables; see `EntropyModel.largest_tables`."""
        layout = table_layout(symbols.size) if symbols.size <= 2**MAX_CONTEXT_BITS else {}
        return {name: math.prod(shape) for name, (shape, _) in layout.items()}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tables by name."""
        return dict(vars(self))

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Code the symbols; see `EntropyModel.encode`."""
        encoder = RangeEncoder()
        for _, bits, probabilities in self._coded_bits(symbols[..., 0]):
            encoder.encode_bits(bits, probabilities)
        return encoder.finish()

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`."""
        size = self.codes.size
        symbol_of_code = np.argsort(self.codes).astype(np.int32)
        decoder = RangeDecoder(data)
        grid = with_border(np.zeros((rows, columns), np.int32), size)
        for batch in batches(rows, columns):
            logits = _NodeLogits(self, grid, batch)
            nodes = logits.roots()
            for _ in range(size.bit_length() - 1):
                bits = decoder.decode_bits(logits.probabilities(nodes))
                nodes = 2 * nodes + bits
            grid[batch.place] = symbol_of_code[nodes - size].reshape(len(batch.place[0]), -1)
        return grid[:rows, :columns, None], 0

    def symbol_bits(self, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float64]:
        """Return -log2 of the probability of each symbol."""
        costs = np.zeros(symbols.shape[:2])
        for batch, bits, probabilities in self._coded_bits(symbols[..., 0]):
            costs[batch.place] += bit_costs(bits, probabilities).reshape(len(batch.place[0]), -1)
        return costs[..., None]

    def least_bytes(self, *, rows: int, columns: int) -> int:
        """Return the bytes of bits that all have the largest probability, or fewer."""
        num_bits = self.codes.size.bit_length() - 1
        ones = self.probabilities
        likeliest = max(int(ones.max()), TOTAL - int(ones.min()))
        return least_bytes(rows * columns, np.full(num_bits, likeliest))

    def _coded_bits(
        self, grid: npt.NDArray[np.int32]
    ) -> Iterator[tuple["Batch", npt.NDArray[np.int32], npt.NDArray[np.uint16]]]:
        """Yield batches of a grid with a bit of each symbol and the probability that it is 1, in the order of coding.

        A batch comes once for each bit of its symbols.
        """
        num_bits = self.codes.size.bit_length() - 1
        bordered = with_border(grid, self.codes.size)
        for batch in batches(*grid.shape):
            logits = _NodeLogits(self, bordered, batch)
            codes = self.codes[grid[batch.place]].reshape(-1)
            nodes = logits.roots()
            for shift in range(num_bits - 1, -1, -1):
                bits = codes >> shift & 1
                yield batch, bits, logits.probabilities(nodes)
                nodes = 2 * nodes + bits


def table_layout(size: int) -> dict[str, tuple[tuple[int, ...], type[np.integer]]]:
    """Return the shape and type of each table by name, for a codebook of so many symbols."""
    return {
        "codes": ((size,), np.int32),
        "bias": ((NUM_CLASSES, size), np.int16),
        "pair": ((NUM_CLASSES, NUM_NEIGHBOURS, size + 1, size), np.int16),
        "probabilities": ((2 * LOGIT_LIMIT,), np.uint16),
    }


@dataclasses.dataclass(frozen=True)
class Batch:
    """Symbols that are coded together.

    Attributes:
        kind: Which tables they use, 0 to NUM_CLASSES - 1.
        place: Index arrays of the rows [r, 1] and the columns [1, c] of the grid.
        neighbours: Index arrays of rows and columns of their neighbours, on the grid with a border.
    """

    kind: int
    place: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    neighbours: tuple[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]], ...]


def with_border(grid: npt.NDArray[np.int32], nothing: int) -> npt.NDArray[np.int32]:
    """Add a last row and column of the number that stands for a neighbour outside the picture."""
    return np.pad(grid, ((0, 1), (0, 1)), constant_values=nothing)


def batches(rows: int, columns: int) -> Iterator[Batch]:
    """Yield the batches of a grid; together they are all its symbols, and neighbours are of batches before.

    Neighbours are in the order up, down, left, right; those of corners in the order up left, down right, up right, down
    left.
    """
    spacing = 1 << (max(rows, columns) - 1).bit_length()
    yield _batch(rows, columns, (0, 0), spacing, spacing)
    while spacing > 1:
        half = spacing // 2
        for start in ((half, half), (0, half), (half, 0)):
            if start[0] < rows and start[1] < columns:
                yield _batch(rows, columns, start, spacing, half)
        spacing = half


def _batch(rows: int, columns: int, start: tuple[int, int], spacing: int, distance: int) -> Batch:
    row, column = np.ogrid[start[0] : rows : spacing, start[1] : columns : spacing]
    # Index -1 is the border, as the number of rows or columns is.
    up, down = np.maximum(row - distance, -1), np.minimum(row + distance, rows)
    left, right = np.maximum(column - distance, -1), np.minimum(column + distance, columns)
    kind = min(distance.bit_length(), NUM_DISTANCES) - 1
    if start == (distance, distance):
        return Batch(kind, (row, column), ((up, left), (down, right), (up, right), (down, left)))
    neighbours = ((up, column), (down, column), (row, left), (row, right))
    return Batch(NUM_DISTANCES + kind, (row, column), neighbours)


class _NodeLogits:
    """The probabilities of the bits of one batch.

    Args:
        tables: The entropy model.
        grid: Symbols with a border, known where the batch has neighbours [h + 1, w + 1].
        batch: Which symbols.
    """

    def __init__(self, tables: ContextModel, grid: npt.NDArray[np.int32], batch: Batch) -> None:
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
        """Return the first node of every symbol [n]."""
        return np.ones(self._starts[0].size, np.int32)

    def probabilities(self, nodes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint16]:
        """Return the probability of a 1 at a node of each symbol, in units of 2^-16 [n]."""
        logits = self._bias[nodes].astype(np.int32)
        for starts in self._starts:
            logits += self._pair[starts + nodes]
        return self._table[np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT - 1) + LOGIT_LIMIT]
