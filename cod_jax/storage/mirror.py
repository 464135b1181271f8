"""Folders that are worked in here and kept at an address."""

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.locks import lock
from cod_jax.storage.access import as_url
from cod_jax.storage.cache import working_folder
from cod_jax.storage.folders import download, download_file, upload, upload_file
from cod_jax.storage.reading import list_files, read_bytes

_MIRROR_SECONDS = 60.0
# Beside a working copy: the marker as it was at the address, and the sign that the copy is on its way there.
_SEEN, _UPLOADING = ".seen", ".uploading"

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def working_copy(path: str | os.PathLike[str], marker: str) -> Iterator[Path]:
    """Give a local folder to work in, which is copied to its address when the block ends without an error.

    What is at the address is there before. After an error the local folder stays if the block has changed it, and the
    next call resumes from it, unless the address has got another marker meanwhile.

    Args:
        path: The address, or a local folder, which is then given as it is.
        marker: Name of the file that tells the folder from others, which are refused, and that is copied last.

    Yields:
        The folder, which does not exist if there is nothing at the address.

    Raises:
        FileExistsError: There is something else at the address.
        UserError: The storage cannot be used, another process works in the folder, or what an earlier call has left
            does not belong to what is at the address now.
    """
    if not files.is_address(path):
        yield Path(path)
        return
    url = as_url(path)
    local = working_folder(url, "working")
    files.make_directory(local.parent)
    with (local.parent / ".in_use").open("a+b") as file:
        if not lock(file):
            raise UserError(f"{url} is in use by another process; wait for it or choose another output")
        is_new, uploading = not local.exists(), local.with_name(_UPLOADING)
        _take_up(url, local, marker)
        before = _states(local)
        try:
            yield local
            uploading.touch()
            upload(local, url, marker)
        except BaseException:
            if uploading.exists() or _states(local) != before:
                _logger.warning("what is done so far is in %s; the same command resumes", local)
            elif is_new:
                shutil.rmtree(local, ignore_errors=True)
            raise
        shutil.rmtree(local)


def _take_up(url: str, local: Path, marker: str) -> None:
    """Copy what is at an address, or check that what an earlier call has left belongs to it.

    Raises:
        FileExistsError: There is something else at the address.
        UserError: The storage cannot be read, or the folder does not belong to what is there.
    """
    seen, uploading = local.with_name(_SEEN), local.with_name(_UPLOADING)
    if not local.exists():
        for file in (seen, uploading):
            file.unlink(missing_ok=True)
    found = list_files(url)
    # An upload that was interrupted leaves an address without the marker.
    if found and marker not in found and not uploading.exists():
        raise FileExistsError(f"{url} exists and holds no {marker}, so it is not replaced; choose another output")
    if not local.exists() and found:
        partial = local.with_name(".partial")
        download(url, partial)
        shutil.copyfile(partial / marker, seen)
        partial.replace(local)
    elif marker in found:
        there = read_bytes(f"{url}/{marker}")
        if there not in [file.read_bytes() for file in (seen, local / marker) if file.is_file()]:
            raise UserError(
                f"{url} has got another {marker} since the work in {local} began; choose another output, or remove "
                "that folder to start from what is at the address"
            )
        seen.write_bytes(there)


class Mirror:
    """Keeps files of a local folder at an address too: it copies them now and then while they grow, and at the end.

    Files only grow: of two copies of one the longer is the newer.

    Args:
        folder: The local folder.
        address: The address.
        is_wanted: Says of a path below the folder whether it is kept so.
    """

    def __init__(self, folder: Path, address: str | os.PathLike[str], is_wanted: Callable[[PurePath], bool]):
        self._folder, self._url, self._is_wanted = folder, as_url(address), is_wanted
        self._copied: dict[str, tuple[int, int]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror of a folder", daemon=True)

    def __enter__(self) -> "Mirror":
        """Fetch what is newer at the address, and begin.

        Raises:
            UserError: The storage cannot be read.
        """
        for name, size in list_files(self._url).items():
            local = self._folder / name
            if not self._is_wanted(PurePath(name)):
                continue
            if size > (local.stat().st_size if local.is_file() else -1):
                download_file(f"{self._url}/{name}", local)
            if size == local.stat().st_size:
                self._copied[name] = _state(local)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.copy()

    def copy(self) -> None:
        """Copy what has changed since the last time; a failure is told in the log, and the next time tries again."""
        try:
            for path in sorted(self._folder.rglob("*")):
                name = path.relative_to(self._folder)
                if not self._is_wanted(name) or not path.is_file():
                    continue
                state = _state(path)
                if self._copied.get(name.as_posix()) != state:
                    upload_file(path, f"{self._url}/{name.as_posix()}")
                    self._copied[name.as_posix()] = state
        except (UserError, OSError) as error:
            _logger.warning("not all of the log is copied to its address: %s", files.reason(error))

    def _run(self) -> None:
        while not self._end.wait(_MIRROR_SECONDS):
            self.copy()


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: _state(path) for path in folder.rglob("*") if path.is_file()}


def _state(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns
