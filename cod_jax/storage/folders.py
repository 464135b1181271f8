"""Folders at addresses: copied into the user's cache to be read, and written as local folders that are then copied.

Storage has no renaming of folders: the file that describes a folder, its marker, is written last and removed first, so
that a folder without it is not taken for a whole one.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.storage.access import as_url, naming_address, open_address, retried
from cod_jax.storage.cache import kept_copy
from cod_jax.storage.reading import entries_below

_NUM_THREADS = 8


def fetch(
    address: str | os.PathLike[str], markers: Sequence[str], *, wanted: Callable[[str], bool] = lambda name: True
) -> Path:
    """Copy a folder into the user's cache, unless it is there, and return the copy.

    A folder that has changed since gets another place, so nothing that is in use changes. Subfolders are left out.

    Args:
        address: Where the folder is.
        markers: Names of which the folder must hold one.
        wanted: Says of the name of a file whether it is copied.

    Raises:
        UserError: The folder does not exist, or cannot be read.
    """
    url = as_url(address)
    with naming_address(url):
        system, root = open_address(url)
        system.invalidate_cache(root)
        entries = retried(lambda: system.ls(root, detail=True))
    found = {entry["name"].rsplit("/", 1)[-1]: entry for entry in entries if entry["type"] == "file"}
    if not found.keys() & set(markers):
        raise UserError(f"expected {url} to hold {' or '.join(markers)}; it is another folder, or not complete")
    return _copied(url, {name: entry for name, entry in found.items() if wanted(name)})


def fetch_all(address: str | os.PathLike[str]) -> Path:
    """Copy a file, or a folder with all folders below it, into the user's cache; see `fetch`.

    Raises:
        UserError: There is nothing at the address, or it cannot be read.
    """
    url = as_url(address)
    with naming_address(url):
        entries = entries_below(*open_address(url))
        if not entries:
            raise FileNotFoundError(url)
    if list(entries) == [""]:  # a file
        folder, name = url.rsplit("/", 1)
        return _copied(folder, {name: entries[""]}) / name
    return _copied(url, entries)


def local_path(place: str | os.PathLike[str]) -> Path:
    """Return a path as it is, and of an address the copy that `fetch_all` makes.

    Raises:
        UserError: See `fetch_all`.
    """
    return fetch_all(place) if files.is_address(place) else Path(place)


def download(address: str | os.PathLike[str], folder: Path) -> None:
    """Copy a folder with all folders below it to a local place.

    Args:
        address: Where it is.
        folder: The local folder. Files that an interrupted copy has left there are not copied again.

    Raises:
        UserError: The storage cannot be read.
        OSError: A file cannot be written.
    """
    url = as_url(address)
    with naming_address(url):
        entries = entries_below(*open_address(url))
    _download_all(url, entries, folder)


def download_file(url: str, local: Path) -> None:
    """Copy a file to a local place, which is replaced.

    Raises:
        UserError: The storage cannot be read.
        OSError: The file cannot be written.
    """
    files.make_directory(local.parent)
    temporary = local.with_name(f"{local.name}.part")
    with naming_address(url):
        system, place = open_address(url)
        try:
            retried(lambda: system.get_file(place, str(temporary)))
        except OSError as error:
            if error.errno in files.FULL_DISK:  # the system does not say which file did not fit
                error.filename = str(local)
            raise
    temporary.replace(local)


def _copied(url: str, entries: Mapping[str, Any]) -> Path:
    """Return a folder with copies of files.

    Args:
        url: Address of their folder.
        entries: What the storage tells about each, by its name in the folder.
    """
    state = repr([url, *(sorted(entry.items(), key=repr) for _, entry in sorted(entries.items()))])
    return kept_copy(state, url.rsplit("/", 1)[-1], lambda folder: _download_all(url, entries, folder))


def _download_all(url: str, entries: Mapping[str, Any], folder: Path) -> None:
    """Copy files, several at a time, except for those that an interrupted copy has left whole."""

    def copy(name: str) -> None:
        local, whole = folder / name, entries[name]["size"]
        if local.is_file() and local.stat().st_size == whole:
            return
        download_file(f"{url}/{name}", local)
        got = local.stat().st_size
        if got != whole:
            local.unlink()
            _check_size(f"{url}/{name}", whole, got)

    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(_NUM_THREADS)
        stack.callback(pool.shutdown, cancel_futures=True)
        for _ in pool.map(copy, entries):
            pass


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
        upload(Path(name), as_url(path), marker)


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
        found = entries_below(*open_address(url))
    if found and not force:
        raise FileExistsError(f"{url} already exists; choose another output or pass --force to replace it")
    if found and marker and marker not in found:
        raise FileExistsError(
            f"{url} holds files but no {marker}, so it is not replaced; remove what an interrupted copy has left "
            "there, or choose another output"
        )
    return bool(found)


def upload(folder: Path, url: str, marker: str) -> None:
    """Copy a folder to an address, and remove what else is there.

    Args:
        folder: A local folder.
        url: The address.
        marker: Name of the file that is removed first and copied last.

    Raises:
        UserError: The storage cannot be written.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    with naming_address(url):
        system, root = open_address(url)
        old = entries_below(system, root)
        if marker in old:
            retried(lambda: _remove(system, old[marker]["name"]))
        for name in sorted(names, key=lambda name: name == marker):
            if name == marker:
                for gone in old.keys() - set(names):
                    retried(lambda gone=gone: _remove(system, old[gone]["name"]))
            upload_file(folder / name, f"{url}/{name}")


def upload_file(local: Path, url: str) -> None:
    """Copy a file to an address.

    Raises:
        UserError: The storage cannot be written.
    """
    with naming_address(url):
        system, place = open_address(url)

        def put() -> int:
            system.put_file(str(local), place)
            system.invalidate_cache(place.rsplit("/", 1)[0])
            return system.info(place)["size"]

        _check_size(url, local.stat().st_size, retried(put))


def move(url: str, target: str, marker: str) -> None:
    """Give a folder at an address another place in the same bucket, file by file.

    Args:
        url: The folder.
        target: Its new place, where nothing is.
        marker: Name of the file that is removed first, so that a part of the folder is not taken for a whole one.

    Raises:
        UserError: The storage cannot be read or written.
    """
    with naming_address(url):
        system, root = open_address(url)
        _, place = open_address(target)
        entries = entries_below(system, root)
        for name, entry in entries.items():
            retried(lambda entry=entry, name=name: system.cp_file(entry["name"], f"{place}/{name}"))
        if marker in entries:
            retried(lambda: _remove(system, entries[marker]["name"]))
        with contextlib.suppress(FileNotFoundError):
            retried(lambda: system.rm(root, recursive=True))
        system.invalidate_cache(root)
        system.invalidate_cache(place)


def _remove(system: Any, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # the request before may have done it, though its answer was lost
        system.rm_file(path)


def _check_size(url: str, expected: int, got: int) -> None:
    if got != expected:
        raise UserError(f"expected {expected} bytes in {url}, got {got}; it was changed meanwhile, so try again")
