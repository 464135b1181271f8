"""An entropy model of your own: symbols are coded by the symbol above them.

    export PYTHONPATH=. COD_JAX_PLUGINS=examples
    cod fit-prior --model MODEL --images PHOTOS --entropy-model examples.own_entropy_model:AboveModel
    cod compress -m MODEL photo.jpg

The prior in the model folder names the class, and files that are smaller this way have the mode "custom". The interface
is `cod_jax.coding.entropy.EntropyModel`; this class is for models with a codebook.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.coding.entropy import EntropyModel, SymbolFormat, Tables
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder
from cod_jax.errors import UserError

MAX_SYMBOLS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class AboveModel(EntropyModel):
    """Codes a picture row by row; each symbol has the frequencies that go with the one above it.

    Attributes:
        counts: Frequencies of the symbols in units of 2^-16 for each symbol above, [K + 1, K]; the last row is for the
            first row of a picture. Each is at least 1, and those of a row sum to 65536.
    """

    counts: npt.NDArray[np.int32]

    @classmethod
    def fit(cls, grids: Sequence[npt.NDArray[np.int32]], symbols: SymbolFormat) -> "AboveModel":
        """Return the model with the frequencies of the symbols [h, w, 1] of some pictures."""
        if symbols.bits is None or symbols.size > MAX_SYMBOLS:
            raise UserError(f"expected the symbols of a codebook of at most {MAX_SYMBOLS}, got {symbols}")
        occurrences = np.ones((symbols.size + 1, symbols.size))
        for grid in grids:
            above = np.concatenate([np.full_like(grid[:1], symbols.size), grid[:-1]])
            np.add.at(occurrences, (above[..., 0], grid[..., 0]), 16)
        shares = occurrences / occurrences.sum(axis=1, keepdims=True) * (TOTAL - symbols.size)
        counts = 1 + np.floor(shares).astype(np.int32)
        # What rounding left over goes to the most frequent symbol.
        rows = np.arange(symbols.size + 1)
        counts[rows, counts.argmax(axis=1)] += TOTAL - counts.sum(axis=1)
        return cls(counts)

    @classmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "AboveModel | None":
        """Return the model of a folder's tables, which may be untrusted."""
        counts = tables.get("counts")
        if counts is None or symbols.bits is None:
            return None
        if counts.shape != (symbols.size + 1, symbols.size) or counts.dtype != np.int32:
            raise UserError(
                f"expected int32 counts {symbols.size + 1, symbols.size}, got {counts.dtype} {counts.shape}"
            )
        if counts.min() < 1 or np.any(counts.sum(axis=1, dtype=np.int64) != TOTAL):
            raise UserError(f"expected positive counts that sum to {TOTAL}; fit the entropy model again")
        return cls(counts)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the table."""
        return {"counts": self.counts}

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Code symbols [h, w, 1]."""
        encoder = RangeEncoder()
        above = np.full(symbols.shape[1], len(self.counts) - 1)
        for row in symbols[..., 0]:
            for places, counts in self._groups(above):
                encoder.encode_symbols(row[places], counts)
            above = row
        return encoder.finish()

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`."""
        decoder = RangeDecoder(data)
        symbols = np.zeros((rows, columns, 1), np.int32)
        above = np.full(columns, len(self.counts) - 1)
        for row in symbols[..., 0]:
            for places, counts in self._groups(above):
                row[places] = decoder.decode_symbols(places.size, counts)
            above = row
        return symbols, 0

    def _groups(self, above: npt.NDArray[np.integer]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]]:
        """Yield the places of a row that share a symbol above, with their frequencies."""
        for symbol in np.unique(above):
            yield np.flatnonzero(above == symbol), self.counts[symbol]
