"""Descriptions of model folders: read without the weights, without Flax, and without trusting them."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from cod_jax.coding.fingerprints import Fingerprints, fingerprint_with_prior
from cod_jax.errors import UserError, quoted, reason_of
from cod_jax.model_folder.places import DESCRIPTION_FILE, check_place, is_compiled
from cod_jax.model_folder.prior_file import read_prior
from cod_jax.plugins import PluginError
from cod_jax.runtime import folder as compiled

FORMAT = "cod_jax model"
VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
# Descriptions have a few kilobytes.
MAX_DESCRIPTION_BYTES = 2**20


def to_json(values: Mapping[str, Any]) -> bytes:
    """Return the content of `model.json`, of the values beside format and version."""
    return (json.dumps({"format": FORMAT, "version": VERSION, **values}, indent=2) + "\n").encode()


def read_fingerprints(path: str | os.PathLike[str]) -> Fingerprints:
    """Return the fingerprints that files name a model folder or a compiled folder by, without reading the weights.

    Raises:
        UserError: The path is not such a folder, or the folder is damaged or from another version.
    """
    folder = Path(path)
    if is_compiled(folder):
        weights = compiled.read_description(folder).weights_fingerprint
    else:
        weights = read_description(folder)["fingerprint"]
    return Fingerprints(fingerprint_with_prior(weights, read_prior(folder)), weights)


@contextlib.contextmanager
def errors_that_name(file: Path) -> Iterator[None]:
    """Say which description is unusable."""
    try:
        yield
    except PluginError as error:  # the folder is whole
        raise UserError(f"{file}: {reason_of(error)}") from error
    except (UserError, OverflowError) as error:
        raise UserError(f"{file}: {reason_of(error)}; export the model again") from error


def read_description(folder: Path) -> dict[str, Any]:
    """Read `model.json`: its format and version are known, and its fields are of the right types.

    Raises:
        UserError: The path is not a model folder, or the folder is damaged or from another version.
    """
    file = folder / DESCRIPTION_FILE
    check_place(folder)
    if file.stat().st_size > MAX_DESCRIPTION_BYTES:
        raise UserError(
            f"{file} is damaged (longer than {MAX_DESCRIPTION_BYTES} bytes); copy or export the model again"
        )
    try:
        description = json.loads(
            file.read_text(encoding="utf-8"), parse_constant=_refuse_number, parse_float=_finite_float
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({reason_of(error)}); copy or export the model again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UserError(f"{file} does not describe a cod_jax model; give a folder written by cod export")
    version = description.get("version")
    if version != VERSION:
        raise UserError(
            f"{folder} has model format version {quoted(version)}, but this cod_jax reads version {VERSION}; "
            "export the model again with this cod_jax, or use the one that wrote it"
        )
    kinds = {"model": dict, "dtype": str, "training": dict, "fingerprint": str}
    unusable = [name for name, kind in kinds.items() if not isinstance(description.get(name), kind)]
    if unusable:
        raise UserError(
            f"{file} is damaged ({', '.join(unusable)} missing or of another type); copy or export the model again"
        )
    return description


def _finite_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def _refuse_number(text: str) -> NoReturn:
    raise UserError(f"expected a finite number, got {text[:80]}")
