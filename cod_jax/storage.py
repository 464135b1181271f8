"""Folders at addresses of remote storage, such as gs://bucket/models/lite, read and written by way of fsspec.

A folder is read by copying it into the user's cache, and written as a local folder that is then copied. Storage has no
renaming of folders: the file that describes a folder, its marker, is written last and removed first, so that a folder
without it is not taken for a whole one. Credentials are those that the libraries of a storage find by themselves.
"""

import contextlib
import functools
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from cod_jax import files
from cod_jax.errors import UserError, reason_of

# A request that fails is repeated for this time, with pauses that double. Storage may not answer for a minute.
_PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS = 60.0, 1.0
# What the same request will not mend.
_LASTING = (FileNotFoundError, PermissionError, NotImplementedError, ImportError, ValueError)


def fetch(address: str | os.PathLike[str], markers: Sequence[str]) -> Path:
    """Copy a folder into the user's cache, unless it is there, and return the copy.

    A folder that has changed since gets another place, so nothing that is in use changes. Subfolders are left out.

    Args:
        address: Where the folder is.
        markers: Names of which the folder must hold one.

    Raises:
        UserError: The folder does not exist, or cannot be read.
    """
    url = as_url(address)
    with naming_address(url):
        system, root = _open(url)
        system.invalidate_cache(root)
        found = {
            _name(entry): entry for entry in _retried(lambda: system.ls(root, detail=True)) if entry["type"] == "file"
        }
    if not found.keys() & set(markers):
        raise UserError(f"expected {url} to hold {' or '.join(markers)}; it is another folder, or not complete")
    state = repr([url, *(sorted(entry.items(), key=repr) for _, entry in sorted(found.items()))])
    target = _cache() / hashlib.sha256(state.encode()).hexdigest()[:16] / Path(root).name
    if target.is_dir():
        return target
    with contextlib.suppress(FileExistsError), files.new_directory(target) as folder:  # another process may be faster
        for name, entry in found.items():
            with naming_address(f"{url}/{name}"):
                _retried(lambda entry=entry, name=name: system.get_file(entry["name"], str(folder / name)))
            _check_size(f"{url}/{name}", entry["size"], (folder / name).stat().st_size)
    return target


@contextlib.contextmanager
def new_directory(path: str | os.PathLike[str], force: bool = False, marker: str = "") -> Iterator[Path]:
    """Fill a temporary folder, which gets its place when the block ends without an error.

    Args:
        path: Folder to make, a local one as in `files.new_directory`, or an address.
        force: Replace an existing folder instead of refusing it.
        marker: Name of a file that an existing folder must hold to be replaced, and that is copied last.

    Yields:
        The temporary folder.

    Raises:
        FileExistsError: The folder exists and may not be replaced.
        UserError: The storage cannot be written.
    """
    if not files.is_address(path):
        with files.new_directory(path, force=force, marker=marker) as folder:
            yield folder
        return
    check_new_directory(path, force, marker)
    with tempfile.TemporaryDirectory(prefix="cod_jax_") as name:
        yield Path(name)
        _upload(Path(name), as_url(path), marker)


def check_new_directory(path: str | os.PathLike[str], force: bool = False, marker: str = "") -> bool:
    """Refuse a place where `new_directory` cannot make a folder; call it before long work.

    Returns:
        Whether there is a folder to replace.

    Raises:
        FileExistsError: The folder exists and may not be replaced.
        UserError: The storage cannot be read.
    """
    if not files.is_address(path):
        return files.check_new_directory(path, force, marker)
    url = as_url(path)
    with naming_address(url):
        found = _files_below(*_open(url))
    if found and not force:
        raise FileExistsError(f"{url} already exists; choose another output or pass --force to replace it")
    if found and marker and marker not in found:
        raise FileExistsError(
            f"{url} holds files but no {marker}, so it is not replaced; remove what an interrupted copy has left "
            "there, or choose another output"
        )
    return bool(found)


def _upload(folder: Path, url: str, marker: str) -> None:
    """Copy a folder, and remove what else is at its place."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    with naming_address(url):
        system, root = _open(url)
        old = _files_below(system, root)
        if marker in old:
            system.rm_file(old[marker])
        for name in sorted(names, key=lambda name: name == marker):
            place, local = f"{root}/{name}", folder / name
            if name == marker:
                for gone in old.keys() - set(names):
                    system.rm_file(old[gone])
            _retried(lambda local=local, place=place: system.put_file(str(local), place))
            system.invalidate_cache(root)
            _check_size(f"{url}/{name}", local.stat().st_size, system.info(place)["size"])


def _files_below(system: Any, root: str) -> dict[str, str]:
    """Return the files of a folder at all depths by their names in it."""
    system.invalidate_cache(root)
    paths = _retried(lambda: system.find(root))
    return {path.removeprefix(root).lstrip("/"): path for path in paths}


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    import fsspec

    set_up_libraries()
    system, root = fsspec.core.url_to_fs(url)
    return system, root.rstrip("/")


def as_url(address: str | os.PathLike[str]) -> str:
    """Return an address, or what a `Path` has made of it, in its usual form and without a slash at its end."""
    # A `Path` keeps one slash of two.
    return re.sub(r"^([^:]+):/+", r"\1://", os.fspath(address)).rstrip("/")


def _name(entry: Mapping[str, Any]) -> str:
    return entry["name"].rsplit("/", 1)[-1]


def _check_size(url: str, expected: int, got: int) -> None:
    if got != expected:
        raise UserError(f"expected {expected} bytes in {url}, got {got}; it was changed meanwhile, so try again")


def _retried(request: Callable[[], Any]) -> Any:
    """Repeat a request that fails, unless its library has been repeating it for as long as is worth waiting."""
    end, pause = time.monotonic() + _PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS
    while True:
        try:
            return request()
        except Exception as error:
            if isinstance(error, _LASTING) or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause *= 2


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
    return folder / "fetched"


@functools.cache
def set_up_libraries() -> None:
    """Tell gcsfs what fits all uses here; without fsspec it does nothing."""
    with contextlib.suppress(ImportError):
        from fsspec.config import conf

        # Other processes write into a folder, and so do libraries beside gcsfs.
        conf.setdefault("gcs", {})["use_listings_cache"] = False
    # It prints tracebacks of errors that it also raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def naming_address(url: str) -> Iterator[None]:
    """Name an address in whatever fails while it is used; each library has errors of its own.

    Raises:
        UserError: The block failed.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{url} needs the extra storage: pip install 'cod_jax[storage]' ({error})") from error
    except FileNotFoundError as error:
        raise UserError(f"{url} does not exist") from error
    except Exception as error:
        raise UserError(f"{url} cannot be used ({type(error).__name__}: {reason_of(error)})") from error
