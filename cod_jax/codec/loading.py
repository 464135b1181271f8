"""Load codecs from folders."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cod_jax.codec.codec import Codec
from cod_jax.coding.sizes import MAX_PIXELS
from cod_jax.errors import UserError
from cod_jax.model_folder.included import model_path
from cod_jax.model_folder.places import is_compiled

if TYPE_CHECKING:
    from cod_jax.model_folder.bundle import Bundle


def load(path: str | os.PathLike[str] | None = None, *, max_pixels: int = MAX_PIXELS, sha256: str = "") -> Codec:
    """Load a model folder written by `cod export`, a compiled one written by `cod compile`, or an included model.

    A model folder may come from anybody. A compiled folder must be trusted, or be the one of the SHA-256 given.

    Args:
        path: Folder of the model, the address of one, such as gs://bucket/models/lite, or the name of an included one,
            see `cod models`; by default the included "compact".
        max_pixels: Larger pictures are refused, so that a few untrusted bytes cannot ask for all memory. At
            most 2**27.
        sha256: For a compiled folder, what `cod compile` and `cod info` print as its SHA-256, 64 hex digits. If
            anything in the folder was changed since, it is refused before its programs are read.

    Raises:
        UserError: The path is not such a folder, or the folder is damaged, from another version, compiled without
            programs for this machine, or not the one of the SHA-256.
    """
    path = model_path(path if path is None else _checked_folder(path))
    if is_compiled(path):
        return load_compiled(path, max_pixels=max_pixels, sha256=sha256)
    if sha256:
        raise UserError(
            f"expected a compiled folder for the SHA-256, got {path}; give the folder that cod compile wrote"
        )
    from cod_jax.model_folder.bundle import load_bundle

    return from_bundle(load_bundle(path), max_pixels=max_pixels)


def load_compiled(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, sha256: str = "") -> Codec:
    """Load a folder written by `cod compile`; neither the model's code nor Flax is imported.

    Programs are compiled for this machine at the first picture of each size and kept in JAX's persistent cache: in the
    user's cache folder, unless JAX was told another place.

    Args:
        path: Folder of the compiled model; it must be trusted, or be the one of the SHA-256.
        max_pixels: Larger pictures are refused, so that a few untrusted bytes cannot ask for all memory. At
            most 2**27.
        sha256: What names the folder, see `load`.

    Raises:
        UserError: The path is not such a folder, or the folder is damaged, from another version, without programs for
            this machine, or not the one of the SHA-256.
    """
    from cod_jax.codec.compiled_engine import CompiledEngine
    from cod_jax.compilation_cache import use_compilation_cache

    folder = _checked_folder(path)
    use_compilation_cache()
    return Codec(CompiledEngine(folder, sha256), max_pixels=max_pixels)


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
