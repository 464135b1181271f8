"""The file of a model folder, or of a compiled one, that holds the tables which code its symbols."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from cod_jax import files
from cod_jax.coding.entropy import Prior, SymbolFormat, entropy_models, largest_tables
from cod_jax.errors import UserError, quoted, reason_of
from cod_jax.plugins import is_plugin
from cod_jax.runtime.arrays import TABLE_TYPES, open_tensors
from cod_jax.runtime.folder import MAX_PRIOR_BYTES, PRIOR_FILE

# Where the file names the entropy model of another package.
_KIND = "kind"


def to_bytes(prior: Prior) -> bytes:
    """Return the content of the file.

    Raises:
        UserError: It would be longer than `MAX_PRIOR_BYTES`.
    """
    tables = {name: np.ascontiguousarray(table) for name, table in prior.tables.items()}
    data = safetensors.numpy.save(tables, metadata={_KIND: prior.kind} if prior.kind else None)
    if len(data) > MAX_PRIOR_BYTES:
        raise UserError(
            f"expected tables of at most {MAX_PRIOR_BYTES} bytes to code the symbols, got {len(data)}; use fewer "
            "channels, levels or entries"
        )
    return data


def save_prior(folder: str | os.PathLike[str], prior: Prior) -> None:
    """Write the prior into a model folder; the file appears whole or not at all and replaces an older one."""
    files.write_bytes(Path(folder) / PRIOR_FILE, to_bytes(prior))


def read_prior(folder: str | os.PathLike[str], symbols: SymbolFormat | None = None) -> Prior | None:
    """Read the prior of a folder; its tables are integers, but may be those of another model.

    Args:
        folder: The folder.
        symbols: The symbols of its model, if they are known. Tables of this package's entropy models that are too large
            for them, or unknown, are refused before their values are read.

    Returns:
        The prior; None where the folder has none.

    Raises:
        UserError: The file is damaged; the text names it.
    """
    file = Path(folder) / PRIOR_FILE
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > MAX_PRIOR_BYTES:
            raise UserError(f"it is longer than {MAX_PRIOR_BYTES} bytes")
        with open_tensors(file) as tensors:
            kind = tensors.metadata.get(_KIND, "")
            if kind and not is_plugin(kind):
                raise UserError(f"its kind is {quoted(kind)}")
            wrong = [] if symbols is None or kind else _too_large(tensors.shapes, symbols)
            if not wrong:
                return Prior(tensors.read(TABLE_TYPES), kind)
    except UserError as error:
        raise UserError(f"{file} is damaged ({error}); copy or make the folder again") from error
    raise _of_another_model(file, f"the tables {', '.join(wrong[:10])} are unknown, or not those of {symbols}")


def load_prior(folder: str | os.PathLike[str], symbols: SymbolFormat) -> Prior | None:
    """Read the prior of a folder whose model has the given symbols.

    Returns:
        The prior; None where the folder has none and its model needs none.

    Raises:
        UserError: The file is missing, damaged, of another model, or needs a package that is not trusted.
    """
    prior = read_prior(folder, symbols)
    file = Path(folder) / PRIOR_FILE
    try:
        entropy_models(symbols, prior)
    except UserError as error:
        if prior is None:
            raise UserError(
                f"{file} is missing, which codes the symbols of its model; copy or make the folder again"
            ) from error
        if prior.kind:
            raise UserError(f"{file}: {error}") from error
        raise _of_another_model(file, reason_of(error)) from error
    return prior


def _too_large(shapes: Mapping[str, tuple[int, ...]], symbols: SymbolFormat) -> list[str]:
    """Return the names of tables that no entropy model of this package has, or has only with fewer numbers."""
    largest = largest_tables(symbols)
    return sorted(name[:80] for name, shape in shapes.items() if math.prod(shape) > largest.get(name, -1))


def _of_another_model(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} is damaged or of another model ({reason}); copy it again, make the folder again, or fit another with "
        "cod fit-prior --force"
    )
