"""How far apart two pictures are."""

import numpy as np


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    """Return the largest difference of two uint8 pictures.

    Compiled in other pieces, float32 may round a value to the neighbouring level.
    """
    return int(np.abs(one.astype(int) - other).max())
