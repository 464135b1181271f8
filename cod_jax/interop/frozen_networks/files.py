"""The weight files that the authors of frozen networks published: where they come from, and their checksums."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cod_jax.errors import UserError
from cod_jax.interop.weight_files import read_state_dict
from cod_jax.models.functional import Params


class OfficialFile(NamedTuple):
    """Source of a file of published weights.

    Attributes:
        title: What messages call the network.
        url: The file, or the page that holds it.
        names: Names of the file in its releases; all hold the same weights, the first is the one to recommend.
        sha256: Checksums of these, or as many of their first digits as are published; empty where none is.
    """

    title: str
    url: str
    names: tuple[str, ...]
    sha256: tuple[str, ...] = ()


def load_official(
    files: Sequence[OfficialFile],
    folder: str | Path,
    otherwise: str,
    convert: Callable[[Mapping[str, np.ndarray]], Params],
) -> Params:
    """Read one network, which may come in several files.

    Args:
        files: The files that it needs.
        folder: Where they are, or the file itself.
        otherwise: What to do without them; ends the message about a missing file.
        convert: Makes our parameters of their tensors.

    Raises:
        FileNotFoundError: A file is not there; the message says where it comes from and where it belongs.
        UserError: A file is not the official one, or damaged.
    """
    paths = [_find(official, folder, otherwise) for official in files]
    state_dict: dict[str, np.ndarray] = {}
    for official, path in zip(files, paths, strict=True):
        if official.sha256:
            _checked_sha256(official, path)
        state_dict |= read_state_dict(path)
    try:
        return convert(state_dict)
    except UserError as error:
        raise UserError(f"{' and '.join(map(str, paths))}: is not {files[0].title}: {error}") from error


def official_sha256(files: Sequence[OfficialFile], folder: str | Path) -> tuple[str, ...]:
    """Return the SHA-256 of the files of one network, without reading what is in them.

    Args:
        files: The files that it needs.
        folder: Where they are, or the file itself.

    Raises:
        FileNotFoundError: A file is not there; the message says where it comes from and where it belongs.
        UserError: A file is not the official one.
    """
    return tuple(_checked_sha256(official, path) for official, path in [(one, _find(one, folder, "")) for one in files])


def _checked_sha256(official: OfficialFile, path: Path) -> str:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if official.sha256 and not found.startswith(official.sha256):
        raise UserError(
            f"{path}: expected the SHA-256 of the official file, {' or '.join(official.sha256)}, got {found}; download "
            f"it again from {official.url}"
        )
    return found


def _find(official: OfficialFile, folder: str | Path, otherwise: str) -> Path:
    """Return the first of the official names that is in a folder, or the file itself."""
    path = Path(folder)
    if path.is_file():
        return path
    for name in official.names:
        if (path / name).is_file():
            return path / name
    needed = " or ".join(official.names)
    place = f"there is none in {path}" if path.is_dir() else f"there is no such file or folder as {path}"
    raise FileNotFoundError(
        f"{official.title} needs {needed}, and {place}; download it from {official.url} and put it there"
        + (f", or {otherwise}" if otherwise else "")
    )
