"""The interface of entropy models: symbols to bytes and back, by tables of integers.

A file names the mode that its payload is coded in, and each mode has one entropy model. The tables are part of the
model's folder. Everything between them and the bytes is integer arithmetic, so that a file written on one machine is
read on any other.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cod_jax.coding.container import Mode
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError

Tables = Mapping[str, npt.NDArray[Any]]


class EntropyModel(abc.ABC):
    """Codes the symbols of pictures.

    Entropy models of other packages inherit from this class and keep the mode "custom".

    Attributes:
        mode: How files name the model.
    """

    mode: ClassVar[Mode] = "custom"

    @classmethod
    @abc.abstractmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "EntropyModel | None":
        """Make the entropy model of a model folder.

        Args:
            symbols: The symbols to code.
            tables: All tables of the folder by name, from an untrusted file; those of other entropy models may be
                among them.

        Returns:
            The entropy model; None where the tables or the symbols are not for this one.

        Raises:
            UserError: The tables cannot be coded with, or are for other symbols.
        """

    @classmethod
    def fit(cls, grids: Sequence[npt.NDArray[np.int32]], symbols: SymbolFormat) -> "EntropyModel":
        """Make the entropy model that suits the symbols of some pictures; for `cod fit-prior --entropy-model`.

        Args:
            grids: Symbols of pictures [h, w, C], of equal or different sizes.
            symbols: Their format.

        Raises:
            UserError: The symbols cannot be coded by this model, or it is not fitted to pictures.
        """
        raise UserError(f"{cls.__name__} cannot be fitted; define its class method fit")

    @classmethod
    def largest_tables(cls, symbols: SymbolFormat) -> dict[str, int]:
        """Return by name how many numbers each table for such symbols has at most; {} where it needs none."""
        return {}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tables by name, integers, as `from_tables` takes them; {} where it needs none."""
        return {}

    @abc.abstractmethod
    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        """Code the symbols of a picture.

        Args:
            symbols: Symbols [h, w, C] within the format.
            level: Quality level of the picture, which `decode` has to return.

        Raises:
            UserError: The symbols cannot be coded.
        """

    @abc.abstractmethod
    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        """Undo `encode`; of untrusted data it may return any symbols, which are checked afterwards.

        Args:
            data: The payload of a file.
            rows: Rows of the grid of symbols.
            columns: Columns of the grid of symbols.

        Returns:
            Symbols int32 [rows, columns, C], and the quality level.

        Raises:
            UserError: The data is damaged.
        """

    def decode_and_encode(
        self, data: bytes, *, rows: int, columns: int
    ) -> tuple[npt.NDArray[np.int32], int, bytes | None]:
        """Undo `encode`, and say what `encode` gives for the result, where that takes less than asking it.

        Args:
            data: As of `decode`.
            rows: As of `decode`.
            columns: As of `decode`.

        Returns:
            Symbols and level as of `decode`, and the payload; None if `encode` has to be asked.

        Raises:
            UserError: The data is damaged.
        """
        return *self.decode(data, rows=rows, columns=columns), None

    def symbol_bits(self, symbols: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.float64] | None:
        """Return the bits that each symbol takes [h, w, C], by the tables that code it; None where that is not known.

        Their sum is the length of the payload, apart from a byte that names the level and from what the coder rounds.
        """
        return None

    def estimated_bits(self, symbols: npt.NDArray[np.int32], level: int) -> float:
        """Return the sum of `symbol_bits`, or where that is not known the length of the payload in bits."""
        bits = self.symbol_bits(symbols, level)
        return 8.0 * len(self.encode(symbols, level)) if bits is None else float(bits.sum())

    def payload_bytes(self, *, rows: int, columns: int) -> int | None:
        """Return the bytes of every payload for a grid of this size; None where they depend on the symbols."""
        return None

    def least_bytes(self, *, rows: int, columns: int) -> int:
        """Return the bytes that a payload for a grid of this size has at least.

        Shorter ones are refused before they are decoded. When a file is written, zeros are added up to there, which
        `decode` has to pass over.
        """
        return 0


def check_counts(counts: npt.NDArray[np.integer], total: int, what: str) -> None:
    """Refuse frequencies that cannot be coded with.

    Raises:
        UserError: They are not positive numbers that add up to the total.
    """
    if not counts.size or counts.min() < 1 or int(counts.sum(dtype=np.int64)) != total:
        raise UserError(f"expected {what} to be positive numbers that add up to {total}")


def check_layout(tables: Tables, layout: Mapping[str, tuple[tuple[int, ...], type[np.integer]]], what: object) -> None:
    """Refuse tables of other shapes or types.

    Args:
        tables: Tables by name; those that the layout does not have are not looked at.
        layout: Shape and type of each table by name.
        what: What the tables are for, for the message.

    Raises:
        UserError: A table is missing, or has another shape or type; the message names all of them.
    """
    given = {name: (array.shape, array.dtype.type) for name, array in tables.items()}
    wrong = sorted(name for name in layout if given.get(name) != layout[name])
    if wrong:
        raise UserError(f"the tables {', '.join(wrong)} are missing, or not those of {what}")
