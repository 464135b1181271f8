"""Arrays of a compiled model: safetensors files, read without a library of their own."""

import io
import json
import math
from pathlib import Path
from typing import Any, TypeGuard

import jax.numpy as jnp
import numpy as np

from cod_jax.errors import UserError

MAX_TABLE_BYTES = 2**24
_DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(jnp.bfloat16),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
}


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read all tensors of a safetensors file as read-only views of its content.

    Args:
        data: The whole file.

    Raises:
        UserError: The table of tensors and the file do not fit together, tensors overlap or leave gaps, or hold types
            that no compiled model has; the text does not name the file.
    """
    with io.BytesIO(data) as file:
        table, start = _read_table(file, len(data))
    entries = {name: _entry(table, name, len(data) - start) for name in table}
    # As the format demands; also, arrays that share bytes could together be many times larger than the file.
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise UserError(f"tensor {name[:80]!r} begins at byte {begin} instead of {position}, where others end")
        position = end
    if start + position != len(data):
        raise UserError(f"the tensors end at byte {position} of {len(data) - start}")
    return {
        name: np.frombuffer(data, dtype, math.prod(shape), start + begin).reshape(shape)
        for name, (dtype, shape, begin, _) in entries.items()
    }


def read_shape(path: Path, name: str) -> tuple[int, ...]:
    """Read the shape of a tensor of a safetensors file, and nothing else of it than the table of tensors.

    Other tensors are not checked, nor that they lie beside this one.

    Args:
        path: The file.
        name: The tensor's name.

    Raises:
        UserError: The table is damaged, or the tensor is not in it.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        file_bytes = path.stat().st_size
        table, start = _read_table(file, file_bytes)
    return _entry(table, name, file_bytes - start)[1]


def _read_table(file: io.BufferedIOBase, file_bytes: int) -> tuple[dict[str, Any], int]:
    """The table of tensors, and where their bytes begin."""
    table_bytes = int.from_bytes(file.read(8), "little")
    start = 8 + table_bytes
    if file_bytes < 8 or table_bytes > MAX_TABLE_BYTES or start > file_bytes:
        raise UserError(f"the table of tensors claims {table_bytes} bytes in a file of {file_bytes}")
    try:
        table = json.loads(file.read(table_bytes).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the table of tensors is unreadable ({error})") from error
    if not isinstance(table, dict):
        raise UserError("the table of tensors is no JSON object")
    table.pop("__metadata__", None)
    return table, start


def _entry(table: dict[str, Any], name: str, num_bytes: int) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Dtype and shape of a tensor, and where it begins and ends among the `num_bytes` bytes of all tensors."""
    entry = table.get(name)
    values = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = _DTYPES.get(str(values.get("dtype"))), values.get("shape"), values.get("data_offsets")
    if dtype is None or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise UserError(f"the entry of tensor {name[:80]!r} is unusable")
    begin, end = offsets
    if end > num_bytes or math.prod(shape) * dtype.itemsize != end - begin:
        raise UserError(f"tensor {name[:80]!r} of shape {shape} does not fit its {end - begin} bytes")
    return dtype, tuple(shape), begin, end


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)
