"""Reading of results.json, checked without JAX."""

import json
import math
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.errors import UserError, quoted
from cod_jax.evaluation.folders import FORMAT, RESULTS_FILE

# What is taken from the file. A key with a question mark may be missing, or be null.
_IMAGE = {"name": str, "bytes?": int, "decoded?": str}
_POINT = {"label": str, "settings?": dict, "mean": dict, "images": [_IMAGE], "failed?": dict}
_SHAPE = {
    "created?": str,
    "command?": str,
    "versions?": dict,
    "machine?": dict,
    "protocol?": dict,
    "images": [{"name": str, "width": int, "height": int, "sha256?": str}],
    "metrics": [{"name": str, "title": str, "better": str}],
    "not_measured?": [{"name": str, "title": str, "reason": str}],
    "curves": [{"name": str, "kind": str, "title": str, "about": dict, "points": [_POINT]}],
    "bd?": [{"curve": str, "against": str, "metric": str}],
    "dial?": [{"model": str, "curve": str, "label": str}],
    "failed?": dict,
}
# Any length of a file has fewer.
_MAX_DIGITS = 20
_NAMES = {dict: "an object", str: "text", int: "an integer", list: "a list"}
_EMPTY = {
    "versions": dict,
    "machine": dict,
    "protocol": dict,
    "not_measured": list,
    "bd": list,
    "dial": list,
    "failed": dict,
}


def read_results(path: str | Path) -> dict[str, Any]:
    """Return the checked content of results.json.

    Args:
        path: The file, or the folder that `cod evaluate` wrote.

    Returns:
        The content; numbers that are not finite are None, and what the file lacks is empty.

    Raises:
        UserError: There is no such file, or it is not of the known form.
        OSError: It cannot be read.
    """
    file = Path(path) / RESULTS_FILE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UserError(f"expected the {RESULTS_FILE} of an evaluation, got {file}, which does not exist")
    try:
        results = json.loads(files.read_bytes(file), parse_constant=_finite, parse_float=_finite, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not the {RESULTS_FILE} of an evaluation ({error}); give another file") from error
    if not isinstance(results, dict) or "format" not in results:
        raise UserError(f"{file} is not the {RESULTS_FILE} of an evaluation; give another file")
    if results["format"] != FORMAT:
        raise UserError(
            f"expected results of format {FORMAT} in {file}, got {quoted(results['format'])}; evaluate again"
        )
    _check(results, _SHAPE, RESULTS_FILE)
    if not results["metrics"] or not results["images"]:
        raise UserError(f"{file} has no metrics or no pictures; evaluate again")
    return {**{name: kind() for name, kind in _EMPTY.items()}, **results}


def _finite(text: str) -> float | None:
    """Return a number of a file, None in the place of infinity and of what is not a number."""
    value = float(text)
    return value if math.isfinite(value) else None


def _integer(text: str) -> int | float | None:
    """Return an integer of a file; one of very many digits as another number."""
    return int(text) if len(text) < _MAX_DIGITS else _finite(text)


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
