"""Read safetensors files as `runtime.arrays` does, with all types that numpy has."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from cod_jax.errors import UserError, quoted
from cod_jax.interop.weight_files.raw_values import DAMAGED
from cod_jax.runtime.arrays import open_tensors

# numpy has no other types of the format; JAX adds bfloat16 to those that it has.
_TYPES = frozenset(["BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64"])


def looks_like_safetensors(start: bytes) -> bool:
    """Tell by the first 9 bytes or more: a table of tensors follows its length and is a JSON object."""
    return start[8:9] == b"{"


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read every tensor of a safetensors file as a read-only array; bfloat16 becomes float32.

    Raises:
        UserError: The file is damaged or holds an element type that numpy lacks; the message does not name the file.
    """
    other: list[tuple[str, str]] = []
    tensors: dict[str, np.ndarray] = {}
    try:
        with open_tensors(path) as opened:
            other = [(name, kind) for name, kind in opened.types.items() if kind not in _TYPES]
            if not other:
                tensors = opened.read(_TYPES)
    except UserError as error:
        raise UserError(f"is not a sound safetensors file ({quoted(str(error))}); {DAMAGED}") from error
    if other:
        name, kind = other[0]
        raise UserError(
            f"expected the element type of tensor {quoted(name)} to be one of {', '.join(sorted(_TYPES))}, got "
            f"{quoted(kind)}; store it as one of these"
        )
    for name, values in tensors.items():
        tensors[name] = values.astype(np.float32) if values.dtype == jnp.bfloat16 else values
        tensors[name].flags.writeable = False
    return tensors
