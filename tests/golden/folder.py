"""Where the golden files are, and the model that they name."""

import hashlib
from pathlib import Path

import numpy as np

from cod_jax.coding.stream import SymbolCoder
from cod_jax.model_folder.prior_file import load_prior

FOLDER = Path(__file__).parent
PITCH, BITS = 16, 4
# The file of a whole picture, written without the prior.
PICTURE = "picture_raw"


def golden_factorized_coder() -> SymbolCoder:
    """The coder of the golden file of mode factorized, with three channels and two levels; its tables lie in a file."""
    return SymbolCoder("0" * 64, PITCH, 0, load_prior(FOLDER / "factorized", 0))


def golden_coder() -> SymbolCoder:
    """The coder of the golden files, with the prior that lies beside them."""
    return SymbolCoder("0" * 64, PITCH, BITS, load_prior(FOLDER, BITS))


def symbols_hash(indices: np.ndarray) -> str:
    """SHA-256 of the shape and the symbols as little-endian int32."""
    shape = "x".join(map(str, indices.shape))
    return hashlib.sha256(f"{shape} ".encode() + indices.astype("<i4").tobytes()).hexdigest()
