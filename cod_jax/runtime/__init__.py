"""Compressing and decompressing with a compiled model, by JAX, numpy, Pillow and the entropy coder alone.

`python -m cod_jax.compile` makes the folder. Neither the model's code nor Flax is imported.
"""

import os

from cod_jax.coding.pictures import MAX_PIXELS
from cod_jax.compilation_cache import use_compilation_cache
from cod_jax.errors import UserError
from cod_jax.runtime.codec import CompiledCodec

__all__ = ["CompiledCodec", "load"]


def load(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> CompiledCodec:
    """Load a folder written by `python -m cod_jax.compile`.

    Programs are compiled for this machine at the first picture of each size and kept in JAX's persistent cache: in the
    user's cache folder, unless JAX was told another place.

    Args:
        path: Folder of the compiled model.
        max_pixels: Larger pictures are refused, so that a few bytes from a stranger cannot ask for all memory.

    Raises:
        UserError: No such folder, one that is damaged, from another version, or without programs for this machine.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"a compiled model is named by the path of its folder, not by {path!r}; give a path")
    use_compilation_cache()
    return CompiledCodec(path, max_pixels=max_pixels)
