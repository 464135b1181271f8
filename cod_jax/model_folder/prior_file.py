"""The file of a model folder that holds the prior of its symbols."""

import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from cod_jax import files
from cod_jax.coding import factorized, prior
from cod_jax.coding.factorized import FactorizedPrior
from cod_jax.coding.prior import SymbolPrior
from cod_jax.errors import UserError

PRIOR_FILE = "prior.safetensors"

_TYPES: dict[str, type[np.integer]] = {"I16": np.int16, "I32": np.int32, "U16": np.uint16}


def save_prior(folder: str | os.PathLike[str], symbol_prior: SymbolPrior | FactorizedPrior) -> None:
    """Write the prior into a model folder; the file appears whole or not at all and replaces an older one."""
    tables = {name: np.ascontiguousarray(table) for name, table in symbol_prior.to_arrays().items()}
    files.write_bytes(Path(folder) / PRIOR_FILE, safetensors.numpy.save(tables))


def load_prior(folder: str | os.PathLike[str], bits: int) -> SymbolPrior | FactorizedPrior | None:
    """Read the prior of a model folder; nothing is read before all names, shapes and types fit.

    Args:
        folder: Model folder.
        bits: Bits of a symbol of its model; 0 with a factorized bottleneck.

    Returns:
        The prior; None where the folder has none.

    Raises:
        UserError: The file is damaged or of another model.
    """
    file = Path(folder) / PRIOR_FILE
    if not file.is_file():
        return None
    try:
        with safetensors.safe_open(file, framework="numpy") as tables:
            names = list(tables.keys())
            slices = {name: tables.get_slice(name) for name in names}
            given = {name: (tuple(part.get_shape()), _TYPES.get(part.get_dtype())) for name, part in slices.items()}
            if bits and given != prior.table_layout(bits, with_context=set(names) != {"counts"}):
                raise UserError(f"its tables are not those of symbols of {bits} bits")
            if None in (kind for _, kind in given.values()):
                raise UserError("its tables are not integers")
            arrays = {name: tables.get_tensor(name) for name in names}
            return prior.from_arrays(arrays, bits) if bits else factorized.from_arrays(arrays)
    except (safetensors.SafetensorError, ValueError) as error:
        way_out = "make another with python -m cod_jax.fit_prior --force" if bits else "export the model again"
        raise UserError(f"{file} is damaged or of another model ({error}); copy it again, or {way_out}") from error
