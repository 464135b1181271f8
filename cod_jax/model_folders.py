"""Find the model folder that a file names."""

import os
from pathlib import Path

from cod_jax.bundle import DESCRIPTION_FILE, read_fingerprint
from cod_jax.coding import container

SEARCH_PATH = "COD_JAX_MODELS"
"""The environment variable with the folders to search, separated as in PATH: model folders, or folders of them."""


def find_model(model: str) -> Path | None:
    """Search the folders of COD_JAX_MODELS for a model.

    Weights are not read. Folders that cannot be read are passed over.

    Args:
        model: the first 8 hex digits of its fingerprint.

    Returns:
        The model folder; None where there is none.
    """
    for entry in os.environ.get(SEARCH_PATH, "").split(os.pathsep):
        if not entry:
            continue
        root = Path(entry)
        for description in (root / DESCRIPTION_FILE, *sorted(root.glob(f"*/{DESCRIPTION_FILE}"))):
            try:
                fingerprint = read_fingerprint(description.parent)
            except (ValueError, OSError):
                continue
            if container.model_id(fingerprint) == model:
                return description.parent
    return None
