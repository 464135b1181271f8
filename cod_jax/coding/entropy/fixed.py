"""Mode "raw": every symbol in the same number of bits."""

import dataclasses
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cod_jax.coding import bits as bit_packing
from cod_jax.coding.container import Mode
from cod_jax.coding.entropy.model import EntropyModel, Tables
from cod_jax.coding.symbols import SymbolFormat


@dataclasses.dataclass(frozen=True)
class FixedLengthModel(EntropyModel):
    """Stores the symbols of a codebook as they are; it needs no tables.

    Attributes:
        bits: Bits of a symbol.
    """

    mode: ClassVar[Mode] = "raw"
    bits: int

    @classmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "FixedLengthModel | None":
        """Return the model of symbols that have a code of fixed length."""
        return None if symbols.bits is None else cls(symbols.bits)

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Pack the symbols."""
        return bit_packing.pack(symbols, self.bits)

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`."""
        return bit_packing.unpack(data, rows * columns, self.bits).reshape(rows, columns, 1), 0

    def symbol_bits(self, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float64]:
        """Return the same for all symbols."""
        return np.full(symbols.shape, self.bits, np.float64)

    def payload_bytes(self, *, rows: int, columns: int) -> int:
        """Return the bytes of all symbols."""
        return bit_packing.packed_size(rows * columns, self.bits)
