"""Files in folders that are local or at addresses of remote storage, read and written in one way."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cod_jax import files, storage


def join(folder: str, name: str) -> str:
    """Return the place of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def names_in(folder: str) -> list[str]:
    """Return the names of the files in a folder, which may not exist yet.

    Raises:
        UserError: The storage cannot be read.
        OSError: The folder cannot be read.
    """
    if files.is_address(folder):
        return list(storage.list_files(folder))
    return os.listdir(folder) if os.path.isdir(folder) else []


def open_file(place: str) -> Any:
    """Open a file for reading bytes; each storage has a class of its own for that.

    Raises:
        UserError: The storage cannot be read.
        FileNotFoundError: It does not exist.
        OSError: The file cannot be read.
    """
    if not files.is_address(place):
        return files.open_regular(place)
    with _system(place) as (system, path):
        if storage.retried(lambda: system.exists(path)):
            return storage.retried(lambda: system.open(path, "rb"))
    raise FileNotFoundError(f"{place} does not exist")


def read(place: str) -> bytes:
    """Return the content of a file; see `open_file`."""
    with open_file(place) as file:
        return file.read()


def write(place: str, data: bytes) -> None:
    """Write a small file at once; see `new_file`."""
    with new_file(place) as path:
        path.write_bytes(data)


@contextlib.contextmanager
def new_file(place: str) -> Iterator[Path]:
    """Give a local path for a file that gets its place when the block ends without an error.

    Raises:
        UserError: The storage cannot be written.
        OSError: The folder cannot be written.
    """
    if files.is_address(place):
        with tempfile.TemporaryDirectory(prefix="cod_jax_") as folder:
            path = Path(folder, "file")
            yield path
            storage.upload_file(path, storage.as_url(place))  # it appears when it is complete
        return
    files.make_directory(Path(place).parent)
    # In a folder of its own beside the place: several workers may try the same.
    with tempfile.TemporaryDirectory(prefix=".", dir=Path(place).parent) as folder:
        path = Path(folder, "file")
        yield path
        os.replace(path, place)


def link(source: str, target: str) -> None:
    """Give a file a second place, without copying it where the file system can do that.

    Raises:
        UserError: The storage cannot be written.
        OSError: The folder cannot be written.
    """
    if files.is_address(target):
        with _system(source) as (system, path), _system(target) as (_, other):
            storage.retried(lambda: system.cp_file(path, other))
            system.invalidate_cache(other)
        return
    try:
        os.link(source, target)
    except OSError:  # of file systems without hard links
        with new_file(target) as path:
            shutil.copyfile(source, path)


def remove_folder(folder: str, first: str = "") -> None:
    """Remove a folder with all that is in it; one that does not exist is none.

    Args:
        folder: The folder.
        first: Name of the file that tells that it is complete, at an address.

    Raises:
        UserError: The storage cannot be written.
    """
    if not files.is_address(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    names = sorted(storage.list_files(folder), key=lambda name: name != first)
    with _system(folder) as (system, root):
        for name in names:
            # A request that is repeated may find that the first one has done it.
            with contextlib.suppress(FileNotFoundError):
                storage.retried(lambda name=name: system.rm_file(join(root, name)))


@contextlib.contextmanager
def _system(address: str) -> Iterator[tuple[Any, str]]:
    """Give the file system of an address and the path in it, and name the address in errors."""
    url = storage.as_url(address)
    with storage.naming_address(url):
        yield storage.open_address(url)
