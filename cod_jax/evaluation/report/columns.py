"""The numbers of an evaluation as a report holds them: columns instead of rows, with few digits."""

import math
from collections.abc import Mapping
from typing import Any

# Of a picture's row these are no numbers.
_WORDS = ("name", "decoded", "file")


def in_columns(point: Mapping[str, Any], order: Mapping[str, int]) -> dict[str, list[int | float | None]]:
    """Return the numbers of all pictures at a point, a list per name in the order of the pictures.

    Args:
        point: A point of a curve.
        order: Position of each picture by name.

    Returns:
        Six digits of each number; None where there is none.
    """
    columns: dict[str, list[int | float | None]] = {}
    for row in point["images"]:
        for name, value in row.items():
            if name not in _WORDS and isinstance(value, (int, float)) and row["name"] in order:
                columns.setdefault(name, [None] * len(order))[order[row["name"]]] = short(value)
    return columns


def short(value: int | float) -> int | float | None:
    """Return a number with six digits; integers stay, and what is not finite becomes None."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
