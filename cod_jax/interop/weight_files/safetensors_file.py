"""Read safetensors files through the reader of their own library, which checks the whole table before any tensor."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors

from cod_jax.errors import UserError
from cod_jax.interop.weight_files.raw_values import DAMAGED, quote

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
    tensors: dict[str, np.ndarray] = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is not a dict)
                _check_type(name, file.get_slice(name).get_dtype())
            for name in file.keys():  # noqa: SIM118
                tensors[name] = file.get_tensor(name)
    except UserError:
        raise
    # ValueError is numpy's, of a shape with too many dimensions.
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"is not a sound safetensors file ({quote(str(error))}); {DAMAGED}") from error
    for name, values in tensors.items():
        tensors[name] = values.astype(np.float32) if values.dtype == jnp.bfloat16 else values
        tensors[name].flags.writeable = False
    return tensors


def _check_type(name: str, kind: str) -> None:
    if kind not in _TYPES:
        raise UserError(
            f"expected the element type of tensor {quote(name)} to be one of {', '.join(sorted(_TYPES))}, got "
            f"{quote(kind)}; store it as one of these"
        )
