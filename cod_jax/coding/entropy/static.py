"""Mode "static": by how often each symbol occurs."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cod_jax.coding.container import Mode
from cod_jax.coding.entropy.model import EntropyModel, Tables, check_counts, check_layout
from cod_jax.coding.range_coder import TOTAL, RangeDecoder, RangeEncoder, least_bytes
from cod_jax.coding.symbols import SymbolFormat


@dataclasses.dataclass(frozen=True, eq=False)
class StaticModel(EntropyModel):
    """Codes the symbols of a codebook row by row with one table.

    Attributes:
        counts: How often each symbol occurs, in units of 2^-16: each at least 1, together 65536 [K].
    """

    mode: ClassVar[Mode] = "static"
    counts: npt.NDArray[np.int32]

    @classmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "StaticModel | None":
        """Return the model of symbols of a codebook; see `EntropyModel.from_tables`."""
        if symbols.bits is None or "counts" not in tables:
            return None
        check_layout(tables, {"counts": ((symbols.size,), np.int32)}, symbols)
        check_counts(tables["counts"], TOTAL, "the counts of the prior")
        return cls(tables["counts"])

    @classmethod
    def largest_tables(cls, symbols: SymbolFormat) -> dict[str, int]:
        """Return the number of symbols; see `EntropyModel.largest_tables`."""
        return {"counts": symbols.size}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the table."""
        return {"counts": self.counts}

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Code the symbols; see `EntropyModel.encode`."""
        encoder = RangeEncoder()
        encoder.encode_symbols(symbols.reshape(-1), self.counts)
        return encoder.finish()

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`."""
        return RangeDecoder(data).decode_symbols(rows * columns, self.counts).reshape(rows, columns, 1), 0

    def symbol_bits(self, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float64]:
        """Return -log2 of the probability of each symbol."""
        return -np.log2(self.counts[symbols] / TOTAL)

    def least_bytes(self, *, rows: int, columns: int) -> int:
        """Return the bytes of symbols that are all the likeliest one, or fewer."""
        return least_bytes(rows * columns, self.counts.max(keepdims=True))
