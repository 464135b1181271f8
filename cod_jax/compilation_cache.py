"""Where compiled programs are kept between runs."""

import os
import sys
from pathlib import Path

# What JAX takes unless it is told otherwise.
_JAX_MIN_COMPILE_SECONDS = 1.0


def use_compilation_cache() -> None:
    """Keep compiled programs between runs in the user's cache folder, unless JAX was told another place.

    Programs that take more than 0.2 seconds to compile are kept, unless JAX was told another time: its own second is
    about what an encoder or a decoder takes.
    """
    import jax

    name = "jax_persistent_cache_min_compile_time_secs"
    if name.upper() not in os.environ and jax.config.values[name] == _JAX_MIN_COMPILE_SECONDS:
        jax.config.update(name, 0.2)
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "cod_jax" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # Without a cache everything works, only slower.
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
