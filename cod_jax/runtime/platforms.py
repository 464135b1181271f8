"""The kind of device that JAX computes on, found without importing JAX where it can only be the processor."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

from cod_jax.errors import UserError
from cod_jax.runtime.folder import Platform

# What brings devices to JAX beside the processor: packages, entry points of any package, and libraries that it is told.
_PLUGINS = ("jax_plugins", "libtpu")
_ENTRY_POINTS = b"[jax_plugins]"
_LIBRARIES = ("PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH")


def computes_on_cpu() -> bool:
    """Return whether JAX computes on the processor by default."""
    return _can_only_be_cpu() or _backend() == "cpu"


def current_platform() -> Platform:
    """Return the platform that JAX computes on by default.

    Raises:
        UserError: A kind of device that programs cannot be made for.
    """
    if _can_only_be_cpu():
        return "cpu"
    backend = _backend()
    if backend == "gpu":
        import jax

        return "rocm" if "rocm" in jax.devices()[0].client.platform_version.lower() else "cuda"
    if backend not in ("cpu", "tpu"):
        raise UserError(f"expected JAX to compute on cpu, cuda, rocm or tpu, got {backend}; set JAX_PLATFORMS=cpu")
    return backend


def _backend() -> str:
    import jax

    return jax.default_backend()


@functools.cache  # the same answer, whether JAX is imported later or not
def _can_only_be_cpu() -> bool:
    """Return whether the environment leaves no other choice; a JAX that is imported already may have been told one."""
    if "jax" in sys.modules or "JAX_PLATFORM_NAME" in os.environ:
        return False
    if chosen := os.environ.get("JAX_PLATFORMS", ""):
        return chosen == "cpu"
    if any(name in os.environ for name in _LIBRARIES) or any(map(importlib.util.find_spec, _PLUGINS)):
        return False
    # Without the library for them, whose import takes a tenth of the start.
    declared = (file for folder in sys.path for file in Path(folder).glob("*.dist-info/entry_points.txt"))
    return not any(_ENTRY_POINTS in file.read_bytes() for file in declared)
