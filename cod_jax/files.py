"""Reading files, atomic writes of files and folders, and printable error messages."""

import contextlib
import ctypes
import errno
import io
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
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
# Errors of a full disk: the disk itself, the user's share of it, and the longest file.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Length of the part of a name that a temporary name beside it repeats. Some file systems allow 143 bytes at most.
_KEPT_NAME_BYTES = 100
# What of the above has not yet been renamed or removed.
_unfinished: set[Path] = set()
# Of Linux's renameat2: paths are relative to the current folder, and both names are kept.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def is_address(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the address of remote storage, such as gs://bucket/run: it begins with a scheme."""
    # A `Path` keeps one slash of two.
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)) is not None


def require_local(path: str | os.PathLike[str]) -> None:
    """Refuse the address of remote storage, such as gs://bucket/run, which would be taken for a local path.

    Raises:
        UserError: The path begins with a scheme.
    """
    if is_address(path):
        raise UserError(f"{path} is an address, and only local paths work here; mount that storage, or copy the files")


def write_bytes(path: str | os.PathLike[str], data: bytes, *, replace: bool = True) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    Missing parent folders are made. A symbolic link is followed: its target is replaced, the link stays. A file that is
    replaced leaves its mode to the new one, and its owner where the system allows that.

    Args:
        path: File to write.
        data: The whole content.
        replace: Replace an existing regular file. Without it, of several writers of one file the first one wins.

    Raises:
        UserError: The path exists and is not a regular file (a folder, a device).
        FileExistsError: The path exists and may not be replaced.
        OSError: The folder cannot be written; the old file, if any, is untouched.
    """
    require_local(path)
    _refuse_dash(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UserError(f"{path} is not a regular file; choose another output")
    make_directory(target.parent)
    with _temporary(target) as temporary:
        with _naming(path), temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            _keep_owner_and_mode(target, temporary)
            os.replace(temporary, target)
        else:
            _move_to_free_name(temporary, target)


def append(file: io.FileIO, data: bytes) -> None:
    """Write bytes at the end of a file that was opened without a buffer.

    Raises:
        OSError: They cannot all be written; the file may end in some of them.
    """
    left = memoryview(data)
    with _naming(str(file.name)):
        while left:
            left = left[file.write(left) :]


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
        force: Replace an existing folder instead of refusing it. The old one stays until the new one is complete; then
            they change places, in one instant where the system can do that.
        marker: Name of a file that an existing folder must hold to be replaced. With it, a slip on the command line
            cannot delete a folder of another kind. Empty means that any folder may be replaced.

    Yields:
        The temporary folder. It is removed when the block raises.

    Raises:
        FileExistsError: The path exists and may not be replaced.
    """
    target = Path(os.path.realpath(path))
    check_new_directory(path, force, marker)
    make_directory(target.parent)
    with _temporary(target) as temporary:
        temporary.mkdir()
        yield temporary
        # Once more: another process may have made the folder in the meantime.
        if not check_new_directory(path, force, marker):
            os.replace(temporary, target)
            return
        shutil.copymode(target, temporary)
        if not _exchange(temporary, target):
            retired = temporary.with_suffix(".old")
            os.replace(target, retired)
            try:
                os.replace(temporary, target)
            except BaseException:
                os.replace(retired, target)
                raise
            shutil.rmtree(retired, ignore_errors=True)


def check_new_directory(path: str | os.PathLike[str], force: bool = False, marker: str = "") -> bool:
    """Refuse a place where `new_directory` cannot make a folder; call it before long work.

    Args:
        path: See `new_directory`, as of the others.
        force: Whether an existing folder may be replaced.
        marker: Name of a file that such a folder must hold.

    Returns:
        Whether there is a folder to replace.

    Raises:
        UserError: The path is an address of remote storage.
        FileExistsError: The path exists and may not be replaced.
    """
    require_local(path)
    _refuse_dash(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{path} exists and is not a folder; choose another output")
    occupied = target.is_dir() and any(target.iterdir())
    if occupied and not force:
        raise FileExistsError(f"{path} already exists; choose another output or pass --force to replace it")
    if occupied and marker and not (target / marker).is_file():
        raise FileExistsError(f"{path} exists and holds no {marker}, so it is not replaced; choose another output")
    return occupied


def check_not_around(output: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Refuse an output folder that holds the folder that is read: with --force it would be replaced.

    Raises:
        UserError: It holds it.
    """
    if Path(os.path.realpath(output)) in Path(os.path.realpath(source)).parents:
        raise UserError(f"{output} holds {source}, which would be replaced with it; choose another output")


def check_outside(output: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Refuse an output folder of pictures inside the folder that is read, where they would be read the next time.

    Raises:
        UserError: It is inside, or the same.
    """
    written, read = Path(os.path.realpath(output)), Path(os.path.realpath(source))
    if read in (written, *written.parents):
        raise UserError(
            f"{output} lies in {source}, so its pictures would be read the next time; choose another output"
        )


@contextlib.contextmanager
def clean_exit_on_sigterm() -> Iterator[None]:
    """Make SIGTERM leave the block by `SystemExit`, and remove temporary files and folders at its end.

    The exit status is 143, that of a process ended by SIGTERM; SIGHUP, of a terminal that was closed, does the same
    with status 129. Further signals are ignored in the meantime. Signals can be caught in the main thread only; in
    other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        for ignored in previous:
            signal.signal(ignored, signal.SIG_IGN)
        raise SystemExit(128 + number)

    previous: dict[int, object] = {}
    for number in filter(None, (signal.SIGTERM, getattr(signal, "SIGHUP", None))):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup is to be obeyed
            previous[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        # The exception may have been raised anywhere, also where a temporary file was about to be removed.
        for path in list(_unfinished):
            _remove(path)
        for number, handler in previous.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # pyright: ignore[reportArgumentType]


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


def without_suffixes(paths: Sequence[Path]) -> list[Path]:
    """Return paths without their suffixes; where two would become the same, as of a.jpg and a.png, they keep them."""
    kept: set[Path] = set()
    while True:
        short = [path if path in kept else path.with_suffix("") for path in paths]
        taken: dict[Path, set[Path]] = {}
        for path, name in zip(paths, short, strict=True):
            taken.setdefault(name, set()).add(path)
        clashing = {path for sources in taken.values() if len(sources) > 1 for path in sources} - kept
        if not clashing:
            return short
        kept |= clashing


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file in errors of writing it: the system does not say which one did not fit on a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def _refuse_dash(path: str | os.PathLike[str]) -> None:
    # Whoever writes -o - means standard output, which the commands that can write to it open themselves.
    if os.fspath(path) == "-":
        raise UserError("expected the name of a file or folder, got -; only compress and decompress take streams")


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Give an unused name beside a place; what is there at the end is removed."""
    # The name tells where a file comes from that a killed process left behind. Not the whole name: with an addition it
    # may be too long.
    name = os.fsencode(target.name)[:_KEPT_NAME_BYTES].decode(sys.getfilesystemencoding(), errors="ignore")
    path = target.parent / f".{name}.{secrets.token_hex(4)}.tmp"
    _unfinished.add(path)
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    _unfinished.discard(path)


def _keep_owner_and_mode(target: Path, temporary: Path) -> None:
    """Give a temporary file the owner and the mode of the file that it is about to replace, if there is one."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError, AttributeError):  # most users may not; Windows has no owners of this kind
        os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


def _move_to_free_name(temporary: Path, target: Path) -> None:
    """Give a complete file its name, unless that is taken.

    Raises:
        FileExistsError: The name is taken.
    """
    message = f"{target} already exists; choose another output or pass --force to replace it"
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise FileExistsError(message) from error
    except OSError:  # file systems without hard links; an empty file takes the name first
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError as error:
            raise FileExistsError(message) from error
        os.replace(temporary, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one instant, and return whether the system can do that."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):  # of file systems, and of systems, that cannot
        return False
    raise OSError(code, os.strerror(code), str(other))
