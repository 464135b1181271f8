"""Numbers that lie one after the other in a weight file: their types and how they are read."""

import math
import sys
import zlib
from typing import Any, BinaryIO, NamedTuple, TypeGuard

import numpy as np

from cod_jax.errors import UserError

DAMAGED = "the file is cut short or damaged: download or copy it again"

# numpy has no bfloat16; its 16 bits are the upper half of a float32, to which it is widened.
BFLOAT16 = "bfloat16"


class ValueType(NamedTuple):
    """An element type in a file: a numpy type code, or `BFLOAT16`, and its size."""

    code: str
    num_bytes: int


def value_type(code: str) -> ValueType:
    """Return the type of a numpy code such as "f4", or of `BFLOAT16`."""
    return ValueType(code, 2 if code == BFLOAT16 else np.dtype(code).itemsize)


def is_shape(value: Any) -> TypeGuard[list[int] | tuple[int, ...]]:
    """Tell whether `value` is a list or tuple of sizes that numpy can have as a shape."""
    if not isinstance(value, list | tuple) or len(value) > 32:
        return False
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value):
        return False
    return math.prod(max(n, 1) for n in value) < 2**48


class Record(NamedTuple):
    """Place of the bytes of a tensor or storage; `crc32` is 0 if the file has none."""

    offset: int
    num_bytes: int
    crc32: int = 0


def read_bytes(file: BinaryIO, record: Record, what: str) -> bytes:
    """Read the bytes of `record`; `what` names it in errors.

    Raises:
        UserError: Fewer bytes are left, or the checksum differs.
    """
    file.seek(record.offset)
    data = file.read(record.num_bytes)
    if len(data) != record.num_bytes:
        raise UserError(f"{what} ends after {len(data)} of {record.num_bytes} bytes; {DAMAGED}")
    if record.crc32 and zlib.crc32(data) != record.crc32:
        raise UserError(f"the checksum of {what} is wrong; {DAMAGED}")
    return data


def as_values(data: bytes, kind: ValueType, byte_order: str = "<") -> np.ndarray:
    """View bytes as a read-only vector in native byte order; bfloat16 is widened to float32."""
    if kind.code == BFLOAT16:
        upper = np.frombuffer(data, f"{byte_order}u2").astype(np.uint32)
        values = np.left_shift(upper, 16, out=upper).view(np.float32)
    else:
        values = np.frombuffer(data, f"{byte_order}{kind.code}")
        if (byte_order == "<") != (sys.byteorder == "little"):
            values = values.astype(kind.code)
    values.flags.writeable = False
    return values
