"""The named tensors of a weight file, and the file as it is nested.

Three containers are read: safetensors, the zip archive of torch 1.6 and later, and the pickle sequence of earlier
versions.
"""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cod_jax.errors import UserError, quoted
from cod_jax.interop.weight_files.plain_pickle import ADVICE, Skipped
from cod_jax.interop.weight_files.safetensors_file import looks_like_safetensors, read_safetensors
from cod_jax.interop.weight_files.torch_file import read_legacy, read_zip

# What trainers call the dict of a model's tensors beside those of an optimizer and others.
_WRAPPERS = ("module", "state_dict")
_MAX_LISTED = 10
_logger = logging.getLogger(__name__)


def read_state_dict(path: str | Path, key: str = "") -> dict[str, np.ndarray]:
    """Read the named tensors of a weight file.

    A torch file may wrap them in other dicts, such as {"state_dict": {...}, "epoch": 3}: the dict that holds tensors is
    found where there is one, or one called "module" or "state_dict". Other entries beside the tensors are left out. A
    warning lists those that are not plain values, such as numpy scalars, sets and objects.

    Args:
        path: A safetensors file or a torch file.
        key: Which dict to take, outer names first and separated by dots, where a file holds several.

    Returns:
        {name: read-only array}; arrays may share memory. bfloat16 is widened to float32, all else keeps its type.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file cannot be read; the message is one line and says why and what to do.
    """
    content = read_checkpoint(path)
    found = _find_tensors(content, key, path)
    tensors: dict[str, np.ndarray] = {}
    for name, value in found.items():
        if isinstance(value, Skipped) and "_rebuild" in value.what:
            raise UserError(
                f"{path}: the tensor {quoted(str(name))} is made by {quoted(value.what)}, which is not read; {ADVICE}"
            )
        if isinstance(value, np.ndarray):
            if not isinstance(name, str):
                raise UserError(f"{path}: expected names of tensors to be text, got {quoted(str(name))}; {ADVICE}")
            tensors[name] = value
        elif isinstance(value, dict) and _count_tensors(value, {}):
            raise UserError(f"{path}: holds tensors beside a dict of tensors, {quoted(str(name))}; name it with `key`")
    skipped = _list_skipped(content)
    if skipped:
        _logger.warning("%s: skipped what is neither a tensor nor a plain value: %s", path, skipped)
    return tensors


def read_checkpoint(path: str | Path) -> Any:
    """Read a weight file as it is nested: dicts, lists, tuples, scalars, text, bytes, and read-only arrays.

    In the place of anything else is a `Skipped` that says what it would be.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file cannot be read; the message is one line and says why and what to do.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the weight file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such weight file; check the path")
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read(file: BinaryIO, path: Path) -> Any:
    start = file.read(64)
    file_bytes = path.stat().st_size
    if start.startswith(b"PK"):
        return read_zip(file, file_bytes)
    if start.startswith(b"\x80"):
        return read_legacy(file, file_bytes)
    if path.suffix.lower() == ".safetensors" or looks_like_safetensors(start):
        return read_safetensors(path)
    begins = f"begins with {start[:16]!r}" if start else "is empty"
    raise UserError(f"expected a safetensors or torch file, got one that {begins}; download it again")


def _count_tensors(value: Any, counts: dict[int, int]) -> int:
    """Return how many tensors are in nested dicts, and put the number for each dict by its id into `counts`."""
    if not isinstance(value, dict):
        return int(isinstance(value, np.ndarray))
    counts[id(value)] = sum(_count_tensors(item, counts) for item in value.values())
    return counts[id(value)]


def _list_skipped(value: Any) -> str:
    """Return where what was not read would be, and what it is; "" where everything was read."""
    found = [f"{quoted(place)} ({quoted(what)[1:-1]})" for place, what in islice(_skipped(value), _MAX_LISTED + 1)]
    return ", ".join(found[:_MAX_LISTED]) + (", ..." if len(found) > _MAX_LISTED else "")


def _skipped(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Skipped):
        yield "", value.what
    elif isinstance(value, bytes):
        yield "", "bytes"
    elif isinstance(value, dict):
        for name, item in value.items():
            text = str(name)[:80]
            if isinstance(name, Skipped):
                yield text, f"named by a {name.what}"
            yield from ((f"{text}.{place}" if place else text, what) for place, what in _skipped(item))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from ((f"{index}.{place}" if place else str(index), what) for place, what in _skipped(item))


def _find_tensors(value: Any, key: str, path: str | Path) -> dict[Any, Any]:
    """Return the dict that holds the tensors; see `read_state_dict`."""
    for name in key.split(".") if key else ():
        if not isinstance(value, dict) or name not in value:
            names = ", ".join(quoted(str(n)) for n in list(value)[:10]) if isinstance(value, dict) else "no names"
            raise UserError(f"{path}: has no {quoted(name)} of the key {quoted(key)}; here are {names}")
        value = value[name]
    counts: dict[int, int] = {}
    _count_tensors(value, counts)
    while isinstance(value, dict) and not any(isinstance(item, np.ndarray) for item in value.values()):
        inner = {name: item for name, item in value.items() if counts.get(id(item))}
        known = next((name for name in _WRAPPERS if name in inner), None)
        if known:
            value = inner[known]
        elif len(inner) == 1:
            (value,) = inner.values()
        elif inner:
            shown = [f"{quoted(str(name))} ({counts[id(item)]})" for name, item in islice(inner.items(), _MAX_LISTED)]
            more = ", ..." if len(inner) > _MAX_LISTED else ""
            raise UserError(f"{path}: holds several dicts of tensors: {', '.join(shown)}{more}; name one with `key`")
        else:
            break
    if not isinstance(value, dict) or not any(isinstance(item, np.ndarray) for item in value.values()):
        skipped = _list_skipped(value)
        found = f"none that can be read: {skipped}" if skipped else "none"
        raise UserError(f"{path}: expected a dict of named tensors, found {found}; {ADVICE}")
    return value
