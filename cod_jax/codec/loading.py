"""Load codecs from folders."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cod_jax.codec.codec import Codec
from cod_jax.coding.sizes import MAX_PIXELS
from cod_jax.errors import UserError
from cod_jax.runtime.folder import DESCRIPTION_FILE as COMPILED_DESCRIPTION_FILE

if TYPE_CHECKING:
    from cod_jax.model_folder.bundle import Bundle


def load(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Codec:
    """Load a model folder written by `cod export`, or a compiled one written by `cod compile`.

    Args:
        path: Folder of the model.
        max_pixels: Larger pictures are refused, so that a few untrusted bytes cannot ask for all memory.

    Raises:
        UserError: The path is not such a folder, or the folder is damaged, from another version, or compiled without
            programs for this machine.
    """
    if (_checked_folder(path) / COMPILED_DESCRIPTION_FILE).is_file():
        return load_compiled(path, max_pixels=max_pixels)
    from cod_jax.model_folder.bundle import load_bundle

    return from_bundle(load_bundle(path), max_pixels=max_pixels)


def load_compiled(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Codec:
    """Load a folder written by `cod compile`; neither the model's code nor Flax is imported.

    Programs are compiled for this machine at the first picture of each size and kept in JAX's persistent cache: in the
    user's cache folder, unless JAX was told another place.

    Args:
        path: Folder of the compiled model.
        max_pixels: Larger pictures are refused, so that a few untrusted bytes cannot ask for all memory.

    Raises:
        UserError: The path is not such a folder, or the folder is damaged, from another version, or without programs
            for this machine.
    """
    from cod_jax.codec.compiled_engine import CompiledEngine
    from cod_jax.compilation_cache import use_compilation_cache

    folder = _checked_folder(path)
    use_compilation_cache()
    return Codec(CompiledEngine(folder), max_pixels=max_pixels)


def from_bundle(bundle: "Bundle", *, max_pixels: int = MAX_PIXELS) -> Codec:
    """Make a codec of a model in memory.

    Args:
        bundle: A loaded model folder.
        max_pixels: Larger pictures are refused in both directions.

    Raises:
        UserError: The bundle lacks the autoencoder that its model needs, or the tables that code its symbols.
    """
    from cod_jax.codec.model_engine import ModelEngine

    return Codec(ModelEngine(bundle), max_pixels=max_pixels)


def _checked_folder(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"expected the path of a model folder, got {path!r}")
    return Path(path)
