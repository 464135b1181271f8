"""Find the pictures, or other files, below a folder, without importing what reads them."""

import collections
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cod_jax import files, storage

# Kinds of pictures that are not read, and files that hold none: the content of these is not looked at.
_UNREAD_NAMES = """
heic heif jxl jp2 j2k jpx psd svg exr hdr tga ppm pgm pnm pfm ico eps xcf
dng nef cr2 cr3 arw orf rw2 raf pef srw sr2
"""
_OTHER_NAMES = """
txt json jsonl csv tsv xml html htm md yaml yml log py sh ini db sqlite pdf cod array_record
zip tar gz tgz xz 7z npy npz pt pth ckpt safetensors parquet mat pkl bin lmdb mdb aae xmp
mp4 mov avi mkv mp3 wav
"""
_UNREAD_SUFFIXES = frozenset(f".{name}" for name in _UNREAD_NAMES.split())
_OTHER_SUFFIXES = frozenset(f".{name}" for name in _OTHER_NAMES.split())
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_START_BYTES = 18
_NUM_NAMED = 10
_UNREAD = "not a kind of picture that is read"

_logger = logging.getLogger(__name__)

# Says whether a file is one of those in question, from its entry and name; it adds to the third what it leaves out.
_Choice = Callable[[os.DirEntry[str], str, dict[str, str]], bool]


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """List the pictures below a folder.

    Hidden files and folders are left out. Pictures are recognised by their suffix, in upper or lower case, or else by
    their first bytes. Linked folders are searched too, each once, and under its own name if it is below the folder.
    Folders that cannot be read, pictures of kinds that are not read, and pipes or devices with the name of a picture
    are counted and named in the log. At an address of remote storage only the suffix counts.

    Args:
        folder: Folder to search with all folders below it, or an address.

    Returns:
        Paths relative to the folder, with "/" between parts, sorted, so that every machine sees the same order.

    Raises:
        FileNotFoundError: The folder does not exist.
        NotADirectoryError: The path is not a folder.
        OSError: The folder cannot be read.
        UserError: The address cannot be read.
    """
    if files.is_address(folder):
        return list(images_among(storage.list_files(folder), storage.as_url(folder)))
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"{folder} does not exist; give a folder of images")
    if not root.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give a folder of images")
    return _find(root, _is_picture)


def images_among(sizes: Mapping[str, int], address: str) -> dict[str, int]:
    """Return the sizes in bytes of the pictures below an address, by their paths there; see `find_images`.

    Args:
        sizes: What `storage.list_files` returns.
        address: The address.

    Raises:
        FileNotFoundError: There is nothing at the address.
    """
    if not sizes:
        raise FileNotFoundError(f"{address} does not exist; give a folder of images")
    shown = [name for name in sorted(sizes) if not any(part.startswith(".") for part in name.split("/"))]
    suffixes = {name: os.path.splitext(name)[1].lower() for name in shown}
    _tell_left_out(address, {name: _UNREAD for name in shown if suffixes[name] in _UNREAD_SUFFIXES})
    return {name: sizes[name] for name in shown if suffixes[name] in files.IMAGE_SUFFIXES}


def find_files(folder: str | os.PathLike[str], suffix: str) -> list[str]:
    """List the files of a suffix below a folder, searched as `find_images` does.

    Args:
        folder: Folder to search with all folders below it.
        suffix: Suffix in lower case; names may have upper case.

    Returns:
        Paths relative to the folder, with "/" between parts, sorted.

    Raises:
        OSError: The folder cannot be read.
    """

    def is_wanted(entry: os.DirEntry[str], name: str, left_out: dict[str, str]) -> bool:
        if not name.lower().endswith(suffix):
            return False
        if not entry.is_file() and os.path.exists(entry.path):
            left_out[name] = "not a regular file"
            return False
        return True  # whoever reads a broken link says so

    return _find(Path(folder), is_wanted)


def _find(root: Path, is_wanted: _Choice) -> list[str]:
    names: list[str] = []
    left_out: dict[str, str] = {}
    visited: set[tuple[int, int]] = set()
    # Links wait until all folders were visited, so that these have their own names.
    folders, links = collections.deque([""]), collections.deque[str]()
    while folders or links:
        prefix = folders.popleft() if folders else links.popleft()
        try:
            about = os.stat(root / prefix)
            if (about.st_dev, about.st_ino) in visited:
                continue
            visited.add((about.st_dev, about.st_ino))
            with os.scandir(root / prefix) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise
            left_out[f"{prefix}/"] = f"the folder cannot be read ({error.strerror or error})"
            continue
        for entry in found:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # of a link to itself, or into a closed folder
                left_out[name] = f"the link cannot be followed ({error.strerror or error})"
                continue
            if is_folder:
                (links if entry.is_symlink() else folders).append(name)
            elif is_wanted(entry, name, left_out):
                names.append(name)
    _tell_left_out(root, left_out)
    return sorted(names)


def _tell_left_out(folder: str | Path, left_out: Mapping[str, str]) -> None:
    if left_out:
        named = [f"{name}: {reason}" for name, reason in sorted(left_out.items())[:_NUM_NAMED]]
        more = len(left_out) - len(named)
        named += [f"and {more} more"] if more else []
        _logger.warning("%s: left out %d: %s", folder, len(left_out), files.printable("; ".join(named)))


def _is_picture(entry: os.DirEntry[str], name: str, left_out: dict[str, str]) -> bool:
    """Return whether an entry that is not a folder is taken for a picture; name those that are left out."""
    suffix = os.path.splitext(entry.name)[1].lower()
    is_named_so = suffix in files.IMAGE_SUFFIXES
    if not entry.is_file():
        is_broken_link = entry.is_symlink() and not os.path.exists(entry.path)
        if is_named_so and not is_broken_link:
            left_out[name] = "not a regular file"
        return is_named_so and is_broken_link  # whoever reads it says so
    if suffix in _UNREAD_SUFFIXES:
        left_out[name] = _UNREAD
    if is_named_so or suffix in _UNREAD_SUFFIXES or suffix in _OTHER_SUFFIXES:
        return is_named_so
    try:
        with files.open_regular(entry.path) as file:
            return _is_known(file.read(_START_BYTES))
    except OSError:
        return False


def _is_known(start: bytes) -> bool:
    """Return whether a file that begins so is a picture of a kind that is read, as far as this tells."""
    if start.startswith(b"BM"):
        # Two letters say little: also look at what is 0 and at the size of the header.
        return start[6:10] == bytes(4) and start[15:18] == bytes(3) and start[14] in (12, 40, 52, 56, 64, 108, 124)
    is_webp = start.startswith(b"RIFF") and start[8:12] == b"WEBP"
    return is_webp or start[4:12] in (b"ftypavif", b"ftypavis") or start.startswith(_SIGNATURES)
