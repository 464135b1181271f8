"""Tensors of safetensors files that may be untrusted, through the reader of their own library.

It refuses tables of tensors that do not fit the file before a number is read: tensors may neither overlap nor leave
gaps, so that together they never take more memory than the file.
"""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

# It makes the dtype bfloat16 known to numpy, and so to safetensors.
import ml_dtypes  # noqa: F401
import numpy.typing as npt
import safetensors

from cod_jax.errors import UserError, quoted, reason_of

# The table of a file with 50,000 tensors has about 6 megabytes; those of real files have some thousand tensors.
MAX_TABLE_BYTES = 2**23

# Those of weights and of tables, by how the files name them.
WEIGHT_TYPES = ("F32", "BF16")
TABLE_TYPES = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


class Tensors:
    """The tensors of an open file.

    Attributes:
        shapes: Shape of each tensor by name.
        types: Type of each tensor by name, such as "F32".
        metadata: Texts that the file holds beside its tensors.
    """

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (it is not a mapping)
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in slices.items()}
        self.types: dict[str, str] = {name: part.get_dtype() for name, part in slices.items()}
        self.metadata: dict[str, str] = dict(opened.metadata() or {})

    def read(self, types: Collection[str]) -> dict[str, npt.NDArray[Any]]:
        """Read all tensors.

        Args:
            types: The types that they may have, as the files name them.

        Raises:
            UserError: One has another type; then none is read.
        """
        for name, kind in self.types.items():
            if kind not in types:
                raise UserError(f"expected tensor {quoted(name)} of type {' or '.join(types)}, got {kind}")
        return {name: self._opened.get_tensor(name) for name in self.types}


@contextlib.contextmanager
def open_tensors(file: Path) -> Iterator[Tensors]:
    """Open a safetensors file and check its table of tensors.

    Raises:
        UserError: The file is damaged, or has more tensors than any real one; the text does not name it.
        OSError: It cannot be read.
    """
    with file.open("rb") as start:
        table_bytes = int.from_bytes(start.read(8), "little")
    # The library's own limit is 100 megabytes, which it needs seconds and a gigabyte for. Numbers that are larger than
    # the file are left to it.
    if MAX_TABLE_BYTES < table_bytes < file.stat().st_size:
        raise UserError(f"its table of tensors takes more than {MAX_TABLE_BYTES} bytes")
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            yield Tensors(opened)
    except UserError:
        raise
    # ValueError is numpy's, of a shape with too many dimensions.
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(reason_of(error)) from error
