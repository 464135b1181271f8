"""Find the model folder that a file names."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from cod_jax.coding.container import Mode
from cod_jax.errors import UserError
from cod_jax.model_folder.description import DESCRIPTION_FILE, read_fingerprints
from cod_jax.model_folder.included import included_models
from cod_jax.model_folder.places import is_compiled

SEARCH_PATH = "COD_JAX_MODELS"
"""The environment variable with the folders to search, separated as in PATH: model folders, folders of them, or
compiled folders."""

_logger = logging.getLogger(__name__)


def model_folders() -> Iterator[Path]:
    """Yield the model folders that COD_JAX_MODELS names, those directly in such folders, and the included ones.

    A compiled folder has to be trusted, so it is yielded only if the variable names the folder itself. Names of no
    folder are told in the log.
    """
    for entry in filter(None, os.environ.get(SEARCH_PATH, "").split(os.pathsep)):
        root = Path(entry)
        if not os.path.isdir(root):
            _logger.warning("%s names %s, which is not a folder; correct the variable", SEARCH_PATH, entry)
        if is_compiled(root):
            yield root
        for description in (root / DESCRIPTION_FILE, *sorted(root.glob(f"*/{DESCRIPTION_FILE}"))):
            # Of a folder that may not be entered, Path.is_file raises an error.
            if os.path.isfile(description):
                yield description.parent
    yield from included_models()


def find_model(model: str, mode: Mode) -> Path | None:
    """Search the folders of COD_JAX_MODELS, and the included models, for the model of a file.

    Weights are not read. Folders that cannot be read are passed over.

    Args:
        model: How the file names the model, the first 8 hex digits of a fingerprint.
        mode: How the file is coded.

    Returns:
        A model folder, or a compiled folder; None where there is none.
    """
    for folder in model_folders():
        try:
            fingerprints = read_fingerprints(folder)
        except (UserError, OSError):
            continue
        if fingerprints.match(model, mode):
            return folder
    return None
