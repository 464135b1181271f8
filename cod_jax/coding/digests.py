"""SHA-256 of named arrays, for the fingerprints of models, priors and frozen networks."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def digest_arrays(
    arrays: Mapping[str, npt.NDArray[Any]],
    header: Callable[[str, npt.NDArray[Any]], bytes],
    *,
    start: bytes = b"",
) -> str:
    """Return the SHA-256 of arrays in the order of their names, as 64 hex digits.

    Args:
        arrays: Arrays by name.
        header: Returns the bytes that stand before the numbers of an array, given its name and itself.
        start: What comes before all of them.
    """
    digest = hashlib.sha256(start)
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(header(name, array))
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view(np.uint8).data)
    return digest.hexdigest()
