"""Atomic file and folder writes, image discovery, and printable error messages."""

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from cod_jax.errors import UserError

BinaryFile = io.BytesIO | io.BufferedReader
"""A file that is read, or its content."""

# Formats that `images.to_uint8_rgb` reads, as messages name them, and the suffixes of their files.
IMAGE_FORMATS = "JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF"
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff"),
    *(".bmp", ".gif", ".avif", ".avifs"),
)
# Length of the part of a name that a temporary name beside it repeats. Some file systems allow 143 bytes at most.
_KEPT_NAME_BYTES = 100


def require_local(path: str | os.PathLike[str]) -> None:
    """Refuse the address of remote storage, such as gs://bucket/run, which would be taken for a local path.

    Raises:
        UserError: The path begins with a scheme.
    """
    # A `Path` keeps one slash of two.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)):
        raise UserError(f"{path} is an address, and only local paths work; mount that storage, or copy the files")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    Missing parent folders are made. A symbolic link is followed: its target is replaced, the link stays.

    Args:
        path: File to write; an existing regular file is replaced.
        data: The whole content.

    Raises:
        UserError: The path exists and is not a regular file (a folder, a device).
        OSError: The folder cannot be written; the old file, if any, is untouched.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UserError(f"{path} is not a regular file; choose another output")
    make_directory(target.parent)
    temporary = _temporary_sibling(target)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file.

    Raises:
        OSError: It cannot be read. The message gives the reason and leaves the name to the caller.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            raise OSError("it is a link to a file that does not exist") from error
        raise OSError(f"the file cannot be opened ({error.strerror or error})") from error


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading; a pipe or a device, of which reading may never end, is refused.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """

    def opener(name: str, flags: int) -> int:
        # Without this flag, opening a pipe that nobody writes to waits forever.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file; save its content as a file first", os.fspath(path))
    return file


def make_directory(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it; an existing folder stays as it is.

    Raises:
        UserError: The path is an address of remote storage.
        NotADirectoryError: The folder, or one above it, is a file.
        OSError: It cannot be made.
    """
    require_local(path)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        in_the_way = next(part for part in (Path(path), *Path(path).parents) if part.exists() or part.is_symlink())
        raise NotADirectoryError(f"{in_the_way} is a file, not a folder; choose another place") from error


@contextlib.contextmanager
def new_directory(path: str | os.PathLike[str], force: bool = False, marker: str = "") -> Iterator[Path]:
    """Fill a temporary folder, which is renamed to the path when the block ends without an error.

    Args:
        path: Folder to make. Missing parents are made. An empty folder counts as absent.
        force: Replace an existing folder instead of refusing it. The old one stays until the new one is complete.
        marker: Name of a file that an existing folder must hold to be replaced. With it, a slip on the command line
            cannot delete a folder of another kind. Empty means that any folder may be replaced.

    Yields:
        The temporary folder. It is removed when the block raises.

    Raises:
        FileExistsError: The path exists and may not be replaced.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{path} exists and is not a folder; choose another output")
    occupied = target.is_dir() and any(target.iterdir())
    if occupied and not force:
        raise FileExistsError(f"{path} already exists; choose another output or pass --force to replace it")
    if occupied and marker and not (target / marker).is_file():
        raise FileExistsError(f"{path} exists and holds no {marker}, so it is not replaced; choose another output")
    make_directory(target.parent)
    temporary = _temporary_sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        if occupied:
            retired = _temporary_sibling(target)
            os.replace(target, retired)
            os.replace(temporary, target)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def clean_exit_on_sigterm() -> Iterator[None]:
    """Make SIGTERM leave the block by `SystemExit`, so that temporary files and folders are removed on the way.

    The exit status is 143, that of a process ended by SIGTERM. Further signals are ignored in the meantime. Signals can
    be caught in the main thread only; in other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        # None stands for a handler that was not installed from Python.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


def printable(text: str, encoding: str | None = None) -> str:
    """Return untrusted text, such as a file name, in a form that every terminal can show.

    Args:
        text: Any text.
        encoding: Encoding of a stream that fails on other characters, as stdout does; stderr needs none.

    Returns:
        The text on one line. Control characters, line ends, undecodable bytes of a file name and characters outside the
        encoding are backslash escapes.
    """
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return escaped.encode(encoding, "backslashreplace").decode(encoding) if encoding else escaped


def reason(error: BaseException) -> str:
    """Return an error as one line for people, without the number of a system error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """List the pictures below a folder.

    Hidden files and folders are left out. Files are recognised by their suffix, in upper or lower case.

    Args:
        folder: Folder to search with all folders below it.

    Returns:
        Paths relative to the folder, with "/" between parts, sorted, so that every machine sees the same order.

    Raises:
        FileNotFoundError: The folder does not exist.
        NotADirectoryError: The path is not a folder.
    """
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"{folder} does not exist; give a folder of images")
    if not root.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give a folder of images")
    names: list[str] = []
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(parent).relative_to(root)
        names += [
            (prefix / name).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
        ]
    return sorted(names)


def _temporary_sibling(target: Path) -> Path:
    # The name tells where a file comes from that a killed process left behind. Not the whole name: with an addition it
    # may be too long.
    name = os.fsencode(target.name)[:_KEPT_NAME_BYTES].decode(errors="ignore")
    return target.parent / f".{name}.{secrets.token_hex(4)}.tmp"
