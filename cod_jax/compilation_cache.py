"""Cache of compiled programs between runs."""

import os
import sys
from pathlib import Path

import platformdirs

# What JAX takes unless it is told otherwise.
_JAX_MIN_COMPILE_SECONDS = 1.0


def settings() -> dict[str, str | float]:
    """Return how JAX keeps compiled programs, by the names of its settings.

    They are kept in the user's cache folder, which JAX makes when it has something to keep. Programs that take more
    than 0.2 seconds to compile are kept: JAX's own second is about what an encoder or a decoder takes.
    """
    place = _user_folder()
    kept: dict[str, str | float] = {"jax_persistent_cache_min_compile_time_secs": 0.2}
    # Without a cache everything works, only slower.
    if place is None or not _can_be_written(place):
        return kept
    return {**kept, "jax_compilation_cache_dir": str(place)}


def folder() -> str:
    """Return where JAX keeps compiled programs; "" if nowhere.

    As long as JAX is not imported, that is what the environment tells it.
    """
    name, jax = "jax_compilation_cache_dir", sys.modules.get("jax")
    return (os.environ.get(name.upper()) if jax is None else jax.config.values[name]) or ""


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in the user's cache folder unless JAX was told another place.

    For libraries that use JAX, whether it has been imported or not. Commands set the environment instead.
    """
    import jax

    unset = {"jax_persistent_cache_min_compile_time_secs": _JAX_MIN_COMPILE_SECONDS, "jax_compilation_cache_dir": None}
    for name, value in settings().items():
        if name.upper() not in os.environ and jax.config.values[name] == unset[name]:
            jax.config.update(name, value)


def _user_folder() -> Path | None:
    """Return the place of the programs in the user's cache folder; None of users without a home, as in containers."""
    try:
        folder = platformdirs.user_cache_path("cod_jax", appauthor=False) / "jax"
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # older versions keep the ~ of a home that they do not find


def _can_be_written(folder: Path) -> bool:
    """Return whether a folder is there or can be made, and takes files."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)
