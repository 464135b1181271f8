"""Comparison of what the processes of a run were given."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils


def differing(own: Mapping[str, bytes]) -> dict[str, list[int]]:
    """Return which processes have another value than the first one, by the name of the value.

    Every process calls it, and all get the same answer.

    Args:
        own: Values of this process, such as hashes. All of them, in all processes, have the same length, and the names
            and their order are the same in all processes.
    """
    if not own or jax.process_count() == 1:
        return {}
    mine = np.stack([np.frombuffer(value, np.uint8) for value in own.values()])
    of_all = np.asarray(multihost_utils.process_allgather(mine))
    differ = (of_all != of_all[0]).any(axis=2)
    return {name: np.flatnonzero(differ[:, index]).tolist() for index, name in enumerate(own) if differ[:, index].any()}
