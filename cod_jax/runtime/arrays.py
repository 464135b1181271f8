"""Arrays of a compiled model: safetensors files, read without a library of their own."""

import json
import math
from typing import Any, TypeGuard

import jax.numpy as jnp
import numpy as np

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
        data: the whole file.

    Raises:
        ValueError: the table of tensors and the file do not fit together, or hold types that no compiled model
            has; the text does not name the file.
    """
    table_bytes = int.from_bytes(data[:8], "little")
    start = 8 + table_bytes
    if len(data) < 8 or table_bytes > MAX_TABLE_BYTES or start > len(data):
        raise ValueError(f"the table of tensors claims {table_bytes} bytes in a file of {len(data)}")
    try:
        table = json.loads(data[8:start].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the table of tensors is unreadable ({error})") from error
    if not isinstance(table, dict):
        raise ValueError("the table of tensors is no JSON object")
    table.pop("__metadata__", None)
    return {name: _tensor(data, start, name, entry) for name, entry in table.items()}


def _tensor(data: bytes, start: int, name: str, entry: Any) -> np.ndarray:
    """The tensor of an entry of the table; `start` is where the bytes of all tensors begin."""
    values = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = _DTYPES.get(str(values.get("dtype"))), values.get("shape"), values.get("data_offsets")
    if dtype is None or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"the entry of tensor {name[:80]!r} is unusable")
    begin, end = offsets
    if start + end > len(data) or math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"tensor {name[:80]!r} of shape {shape} does not fit its {end - begin} bytes")
    return np.frombuffer(data, dtype, math.prod(shape), start + begin).reshape(shape)


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)
