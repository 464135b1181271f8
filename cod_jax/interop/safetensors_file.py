"""Read safetensors files: an 8-byte length, a JSON table of tensors, then their bytes."""

import json
import math
from typing import Any, BinaryIO

import numpy as np

from cod_jax.errors import UserError
from cod_jax.interop.raw_values import (
    BFLOAT16,
    DAMAGED,
    Record,
    ValueType,
    as_values,
    is_shape,
    quote,
    read_bytes,
    value_type,
)

# The limit of the format itself.
MAX_HEADER_BYTES = 100_000_000

_CODES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "u2",
    "I16": "i2",
    "U32": "u4",
    "I32": "i4",
    "U64": "u8",
    "I64": "i8",
    "F16": "f2",
    "BF16": BFLOAT16,
    "F32": "f4",
    "F64": "f8",
    "C64": "c8",
}


def looks_like_safetensors(start: bytes) -> bool:
    """Tell by the first 9 bytes or more: the table follows its length and is a JSON object."""
    return start[8:9] == b"{"


def read_safetensors(file: BinaryIO, file_bytes: int) -> dict[str, np.ndarray]:
    """Read every tensor of an open safetensors file of `file_bytes` bytes as a read-only array.

    The whole table is checked before the first tensor is read. bfloat16 becomes float32.

    Raises:
        UserError: The file is damaged or holds an element type that numpy has not; the text does not name the file.
    """
    header, data_start = _read_header(file, file_bytes)
    entries = {name: _check_entry(name, entry) for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, (_, _, begin, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise UserError(f"tensor {quote(name)} starts at byte {begin} where {end} is expected; {DAMAGED}")
        end = stop
    if data_start + end != file_bytes:
        raise UserError(f"the table needs {data_start + end} bytes, the file has {file_bytes}; {DAMAGED}")
    tensors = {}
    for name, (kind, shape, begin, stop) in entries.items():
        data = read_bytes(file, Record(data_start + begin, stop - begin), f"tensor {quote(name)}")
        tensors[name] = as_values(data, kind).reshape(shape)
    return tensors


def _read_header(file: BinaryIO, file_bytes: int) -> tuple[dict[str, Any], int]:
    """Return the table and the position of the first tensor byte."""
    file.seek(0)
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length < 2 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
        raise UserError(f"its table of tensors claims {length} bytes in a file of {file_bytes}; {DAMAGED}")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise UserError(f"its table of tensors is not JSON or names one twice; {DAMAGED}") from None
    if not isinstance(header, dict):
        raise UserError(f"its table of tensors is not a JSON object; {DAMAGED}")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise UserError("a name is repeated")
    return table


def _check_entry(name: str, entry: Any) -> tuple[ValueType, tuple[int, ...], int, int]:
    """Return (element type, shape, first byte, last byte + 1) of a table entry whose numbers fit together."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise UserError(f"the entry of tensor {quote(name)} is not complete; {DAMAGED}")
    code = _CODES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if code is None:
        raise UserError(
            f"tensor {quote(name)} has the element type {quote(str(entry['dtype']))}, which is not one of "
            f"{', '.join(_CODES)}; store it as one of these"
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not is_shape(shape):
        raise UserError(f"the shape of tensor {quote(name)} is not a list of sizes; {DAMAGED}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(is_shape([offset]) for offset in offsets):
        raise UserError(f"the offsets of tensor {quote(name)} are not two sizes; {DAMAGED}")
    kind = value_type(code)
    needed = math.prod(shape) * kind.num_bytes
    if offsets[1] - offsets[0] != needed:
        raise UserError(
            f"tensor {quote(name)} needs {needed} bytes and the table gives {offsets[1] - offsets[0]}; {DAMAGED}"
        )
    return kind, tuple(shape), offsets[0], offsets[1]
