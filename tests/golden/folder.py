"""Where the golden files are, and the model that they name."""

import functools
import hashlib
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cod_jax.coding.stream import SymbolCoder
from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.model_folder.prior_file import load_prior

FOLDER = Path(__file__).parent
PITCH, BITS = 16, 4
SYMBOLS = SymbolFormat(1, 0, 2**BITS - 1)
# Folders as version 0.1 wrote them, from before bottlenecks had kinds: two model folders (one with a codebook of 3 bits
# and a prior, one factorized with two quality levels), the compiled folder of each, a run of two steps of each with its
# checkpoint, the file and the decoded picture of `gradient_image(40, 56)` by each at every quality, and `facts.json`.
VERSION_0_1 = FOLDER / "version_0_1.tar.xz"
# The file of a whole picture, written without the prior.
PICTURE = "picture_raw"


def golden_channel_coder(name: Literal["factorized", "predictive", "networks"]) -> SymbolCoder:
    """The coder of a golden file with three channels and two levels; its tables lie in a folder of its name."""
    symbols = SymbolFormat(3, -LARGEST_SYMBOL, LARGEST_SYMBOL, num_levels=2)
    return SymbolCoder("0" * 64, PITCH, symbols, load_prior(FOLDER / name, symbols))


def golden_coder() -> SymbolCoder:
    """The coder of the golden files, with the prior that lies beside them."""
    return SymbolCoder("0" * 64, PITCH, SYMBOLS, load_prior(FOLDER, SYMBOLS))


def symbols_hash(symbols: np.ndarray) -> str:
    """Return the SHA-256 of the shape, without the axis of a single channel, and the symbols as little-endian int32."""
    shape = "x".join(map(str, symbols.shape[:2] if symbols.shape[2] == 1 else symbols.shape))
    return hashlib.sha256(f"{shape} ".encode() + symbols.astype("<i4").tobytes()).hexdigest()


@functools.cache
def version_0_1() -> Path:
    """Unpack the folders that version 0.1 wrote, once for all tests of a process; nothing may be changed in them."""
    folder = tempfile.TemporaryDirectory(prefix="version_0_1_")
    _unpacked.append(folder)
    with tarfile.open(VERSION_0_1) as archive:
        archive.extractall(folder.name, filter="data")
    return Path(folder.name)


def version_0_1_facts() -> dict[str, Any]:
    """Return what the folders of version 0.1 must still be: fingerprints, modes and symbols, by name."""
    return json.loads((version_0_1() / "facts.json").read_text())


# They are removed when the process ends.
_unpacked: list[tempfile.TemporaryDirectory[str]] = []
