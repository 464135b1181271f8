"""The cores of the processor that this process may use."""

import os


def num_cores() -> int:
    """Return how many cores this process may use; under a scheduler that is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
