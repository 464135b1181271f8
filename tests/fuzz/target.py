"""A target of fuzzing: a reader, and inputs to begin with."""

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """A reader of untrusted files.

    Attributes:
        seeds: Inputs to begin with.
        read: Called with an input; it raises if the reader has a fault.
    """

    seeds: list[bytes]
    read: Callable[[bytes], None]
