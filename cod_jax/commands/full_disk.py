"""A full disk, in one line that says where."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cod_jax import files
from cod_jax.errors import UserError, WorkError, reason_of


def full_disk(error: Exception, folders: Iterable[str]) -> WorkError | None:
    """Return the error about a full disk that stopped a command, None if something else did.

    Args:
        error: What stopped it. Libraries in other languages raise errors of their own kinds, with the system's text.
        folders: Where the command writes, the folders that it would make included.
    """
    if isinstance(error, UserError):  # says itself where
        return None
    if isinstance(error, OSError):
        is_full, text, file = error.errno in files.FULL_DISK, files.reason(error), error.filename
    else:
        is_full, text, file = any(os.strerror(code) in str(error) for code in files.FULL_DISK), reason_of(error), None
    if not is_full:
        return None
    places = [_existing(Path(os.fsdecode(place))) for place in ([file] if file else [*folders, tempfile.gettempdir()])]
    free, folder = min((shutil.disk_usage(place).free, str(place)) for place in places)
    return WorkError(f"{text}; {free / 1e6:,.1f} MB are free in {folder}: make room, and run the command again")


def _existing(path: Path) -> Path:
    """Return a folder that exists, the path or what is above it."""
    return next(one for one in (path, *path.absolute().parents) if one.is_dir())
