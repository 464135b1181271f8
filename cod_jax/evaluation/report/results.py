"""The results of an evaluation as a report reads them: checked, and with short columns instead of rows."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.errors import UserError, quoted

RESULTS_FILE = "results.json"
FORMAT = 1

# What a report takes from the file; a key with a question mark may be missing, and None stands for any JSON.
_POINT = {"label": str, "settings?": dict, "mean": dict, "images": [{"name": str, "bytes?": int, "decoded?": str}]}
_SHAPE = {
    "created?": str,
    "command?": str,
    "versions?": dict,
    "machine?": dict,
    "protocol?": dict,
    "images": [{"name": str, "width": int, "height": int}],
    "metrics": [{"name": str, "title": str, "better": str}],
    "not_measured?": [{"name": str, "title": str, "reason": str}],
    "curves": [{"name": str, "kind": str, "title": str, "about": dict, "points": [_POINT]}],
    "bd?": [{"curve": str, "against": str, "metric": str}],
    "failed?": dict,
}
_NAMES = {dict: "an object", str: "text", int: "an integer", list: "a list"}
# Of a picture's row these are no numbers.
_WORDS = ("name", "decoded", "file")


def read_results(folder: Path) -> dict[str, Any]:
    """Return the checked results of an evaluation.

    Args:
        folder: Folder that `cod evaluate` wrote.

    Raises:
        UserError: There are none, or they are not of the known form.
        OSError: They cannot be read.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise UserError(
            f"expected {RESULTS_FILE} in {folder}, which is not there; name a folder that cod evaluate wrote"
        )
    try:
        results = json.loads(files.read_bytes(path), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); evaluate again") from error
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        found = results.get("format") if isinstance(results, dict) else results
        raise UserError(f"expected results of format {FORMAT} in {path}, got {quoted(found)}; evaluate again")
    _check(results, _SHAPE, RESULTS_FILE)
    if not results["metrics"] or not results["images"]:
        raise UserError(f"{path} has no metrics or no pictures, so there is nothing to report; evaluate again")
    for optional, empty in (
        ("versions", {}),
        ("machine", {}),
        ("protocol", {}),
        ("not_measured", []),
        ("bd", []),
        ("failed", {}),
    ):
        results.setdefault(optional, empty)
    return results


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


def _finite(text: str) -> float | None:
    """Return a number of a file, None in the place of infinity and of what is not a number."""
    value = float(text)
    return value if math.isfinite(value) else None


def _check(value: Any, shape: Any, place: str) -> None:
    """Compare a value with the form that is expected.

    Raises:
        UserError: They differ.
    """
    kind = shape if isinstance(shape, type) else type(shape)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"expected {_NAMES[kind]} at {place}, got {quoted(value)}; evaluate again")
    if isinstance(shape, dict):
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value and not (value[name] is None and name != key):
                _check(value[name], inner, f"{place}: {name}")
            elif name == key:
                raise UserError(f"expected {name} at {place}, which is not there; evaluate again")
    elif isinstance(shape, list):
        for index, item in enumerate(value):
            _check(item, shape[0], f"{place}[{index}]")
