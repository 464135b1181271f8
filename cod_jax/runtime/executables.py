"""Programs compiled for one size each, kept as this machine runs them, so that nothing is traced or lowered again.

JAX's own cache keeps them too, but asks for the lowered program first, which takes longer than the picture. The files
are native code, as those of that cache: they are read from the user's own cache folder and from nowhere else.
"""

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cod_jax import files
from cod_jax.runtime import native

# Those that were made last stay; a file has some hundred kilobytes.
MAX_FILES = 64
_DIGEST_BYTES = 32
_SUFFIX = ".xla"
# What comes of a file that this jaxlib did not write, or that is damaged.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError)


class Executables:
    """Compiled programs in a folder.

    Args:
        folder: The folder, for one machine and one version of everything; it is made when there is something to keep.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def load(self, name: str) -> native.Program | None:
        """Return a program, or None if it is not there or cannot be used; JAX is not imported."""
        file = self._folder / f"{name}{_SUFFIX}"
        try:
            data = file.read_bytes()
            digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            return _program(content) if digest == hashlib.sha256(content).digest() else None
        except _UNREADABLE:
            return None

    def make(
        self, name: str, function: Callable[..., Any], arguments: Sequence[native.Shaped]
    ) -> native.Program | None:
        """Compile a function of arrays that returns one array, and keep it if that is possible.

        Args:
            name: A name for it.
            function: The function, not yet compiled.
            arguments: Shapes and dtypes to compile for.

        Returns:
            The program, or None if jaxlib cannot write it down or run it alone.
        """
        try:
            code, returned = native.compiled(name, function, arguments)
            header = json.dumps({"shape": returned.shape, "dtype": str(returned.dtype)})
            content = header.encode() + b"\n" + code
            program = _program(content)
        except _UNREADABLE:
            return None
        with contextlib.suppress(OSError):  # without room for it, it is compiled each time
            files.write_bytes(self._folder / f"{name}{_SUFFIX}", hashlib.sha256(content).digest() + content)
            self._drop_oldest()
        return program

    def _drop_oldest(self) -> None:
        kept = sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime)
        for file in kept[:-MAX_FILES]:
            file.unlink(missing_ok=True)


def _program(content: bytes) -> native.Program:
    header, _, code = content.partition(b"\n")
    returned = json.loads(header)
    return native.Program(code, native.Shaped(tuple(returned["shape"]), np.dtype(returned["dtype"])))


def processor() -> str:
    """Return what tells apart processors that may not run each other's programs."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read(2**14).partition("\n\n")[0]
    except OSError:
        return platform.processor()
    told = ("model name", "flags", "Features", "CPU")
    return "\n".join(line for line in first.splitlines() if line.startswith(told))
