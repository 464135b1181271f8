"""Local copies of what is in remote storage, in the user's cache.

Each copy has a folder of its own. A process that uses a copy holds a lock of that folder, so that nobody removes it.
"""

import contextlib
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import platformdirs

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.locks import lock
from cod_jax.storage.access import as_url

# Those that were used last stay.
MAX_COPIES = 16
_LOCK_FILE, _PARTIAL = ".in_use", ".partial"
_POLL_SECONDS = 0.2
# Locks of the copies that this process uses; they end with it.
_in_use: dict[Path, io.BufferedRandom] = {}


def kept_copy(state: str, name: str, fill: Callable[[Path], None]) -> Path:
    """Return the copy of something in a certain state, and make it first unless it is there.

    Of several processes one makes it, and the others wait. The copies that were not used for longest are removed when
    there are many, except for those in use.

    Args:
        state: What is copied, and the state that it is in.
        name: Name of the copy.
        fill: Fills a folder. If it was interrupted before, it gets the folder as it was then.

    Raises:
        UserError: The user has no cache folder.
        OSError: The copy cannot be written.
    """
    folder = _cache() / "fetched" / hashlib.sha256(state.encode()).hexdigest()[:16]
    target = folder / name
    while not (folder in _in_use and target.is_dir()):
        files.make_directory(folder)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context((folder / _LOCK_FILE).open("a+b"))
            if target.is_dir():
                # Not while it is being removed.
                if lock(file, shared=True) and target.is_dir():
                    _in_use[folder] = file
                    stack.pop_all()
                    continue
            elif lock(file):
                files.make_directory(folder / _PARTIAL)
                fill(folder / _PARTIAL)
                (folder / _PARTIAL).replace(target)
                continue
        time.sleep(_POLL_SECONDS)
    os.utime(folder)
    _drop_oldest(folder.parent)
    return target


def working_folder(address: str | os.PathLike[str], kind: str) -> Path:
    """Return where the local part of something at an address is, which outlives this process.

    Args:
        address: The address.
        kind: What it is, such as "runs".

    Raises:
        UserError: The user has no cache folder.
    """
    url = as_url(address)
    return _cache() / kind / hashlib.sha256(url.encode()).hexdigest()[:16] / url.rpartition("/")[2]


def _drop_oldest(cache: Path) -> None:
    """Remove the copies that were not used for longest, if nobody uses them."""
    kept = sorted(cache.iterdir(), key=lambda folder: folder.stat().st_mtime)
    for folder in kept[:-MAX_COPIES]:
        with contextlib.suppress(OSError), (folder / _LOCK_FILE).open("a+b") as file:
            if folder not in _in_use and lock(file):
                shutil.rmtree(folder, ignore_errors=True)


def _cache() -> Path:
    """Return where copies are kept.

    Raises:
        UserError: The user has no cache folder.
    """
    try:
        folder = platformdirs.user_cache_path("cod_jax", appauthor=False)
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():
        raise UserError("expected a home folder to keep a copy in, got none; set XDG_CACHE_HOME to a folder")
    return folder
