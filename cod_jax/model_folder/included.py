"""Model folders that come with the package, found without a network."""

import os
from collections.abc import Iterator
from pathlib import Path

from cod_jax import files, storage
from cod_jax.errors import UserError
from cod_jax.model_folder.places import COMPILED_DESCRIPTION_FILE, DESCRIPTION_FILE

FOLDER = Path(__file__).resolve().parents[1] / "included"
DEFAULT = "compact"


def included_models() -> Iterator[Path]:
    """Yield the included model folders by name."""
    for description in sorted(FOLDER.glob(f"*/{DESCRIPTION_FILE}")):
        yield description.parent


def is_included(model: str | os.PathLike[str]) -> bool:
    """Return whether a model folder is one of those that come with the package."""
    return Path(model).resolve().parent == FOLDER.resolve()


def model_path(model: str | os.PathLike[str] | None) -> Path:
    """Return the model folder that is meant: a path, else the name of an included one; None is `DEFAULT`.

    An address of remote storage is copied into the user's cache, and the copy is returned.

    Raises:
        UserError: No model is named, and none is included; or there is none at the address.
    """
    if model is None:
        if not (FOLDER / DEFAULT).is_dir():
            raise UserError("no model comes with this installation; name a model folder")
        return FOLDER / DEFAULT
    if files.is_address(model):
        return storage.fetch(model, (DESCRIPTION_FILE, COMPILED_DESCRIPTION_FILE))
    path = Path(model)
    is_name = path.name == os.fspath(model) and path.name not in ("", ".", "..")
    if is_name and not path.exists() and (FOLDER / path.name / DESCRIPTION_FILE).is_file():
        return FOLDER / path.name
    return path
