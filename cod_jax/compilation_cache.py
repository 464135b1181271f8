"""Where compiled programs are kept between runs."""

import os
import sys
from pathlib import Path


def use_compilation_cache() -> None:
    """Keep compiled programs between runs in the user's cache folder, unless JAX was told another place."""
    import jax

    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX keeps programs of more than a second, which is about what encoder and decoder take to compile.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
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
