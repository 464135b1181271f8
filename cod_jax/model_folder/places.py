"""Tell model folders from other places, from outside: without JAX, and so at once."""

import os
from pathlib import Path

from cod_jax.errors import UserError
from cod_jax.runtime.folder import DESCRIPTION_FILE as COMPILED_DESCRIPTION_FILE

DESCRIPTION_FILE = "model.json"


def is_compiled(folder: Path) -> bool:
    """Return whether a path is the folder of a compiled model.

    A folder that describes a model too is a model folder: those may come from anybody, and nothing in them is run.
    """
    # Path.is_file raises if the folder may not be entered.
    return os.path.isfile(folder / COMPILED_DESCRIPTION_FILE) and not os.path.isfile(folder / DESCRIPTION_FILE)


def description_file(folder: Path) -> Path:
    """Return the file that describes a model folder, or a compiled one."""
    return folder / (COMPILED_DESCRIPTION_FILE if is_compiled(folder) else DESCRIPTION_FILE)


def check_place(folder: Path, *, compiled: bool = False) -> None:
    """Refuse a path that is not a model folder.

    Args:
        folder: The path.
        compiled: Whether the folder of a compiled model is one too.

    Raises:
        UserError: It is missing, not a folder, or a folder of another kind.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(
            f"model {folder} {what}; give a model folder written by cod export, or a name that cod models lists"
        )
    if is_compiled(folder):
        if compiled:
            return
        raise UserError(
            f"{folder} is a compiled model, which cod_jax.load takes; give the model folder that it was made from"
        )
    if not (folder / DESCRIPTION_FILE).is_file():
        raise UserError(
            f"expected {folder} to hold {DESCRIPTION_FILE} or {COMPILED_DESCRIPTION_FILE}; cod export makes a model "
            "folder from a run folder"
        )
