"""Reading single files at addresses, without a copy."""

import os
from typing import Any

from cod_jax import files
from cod_jax.storage.access import as_url, naming_address, open_address, retried


def list_files(address: str | os.PathLike[str]) -> dict[str, int]:
    """Return the size in bytes of each file of a folder at all depths, by its path below the folder.

    Of a file the only path is "". Where there is nothing, the result is empty.

    Raises:
        UserError: The storage cannot be read.
    """
    url = as_url(address)
    with naming_address(url):
        return {name: entry["size"] for name, entry in sorted(entries_below(*open_address(url)).items())}


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file, at an address or a local one.

    Raises:
        OSError: The file cannot be opened.
        UserError: There is nothing at the address.
        StorageError: The storage does not answer.
    """
    if not files.is_address(path):
        return files.read_bytes(path)
    url = as_url(path)
    with naming_address(url):
        system, place = open_address(url)
        return retried(lambda: system.cat_file(place))


def entries_below(system: Any, root: str) -> dict[str, Any]:
    """Return what a file system tells about each file of a folder at all depths, by its path below the folder."""
    system.invalidate_cache(root)
    found = retried(lambda: system.find(root, detail=True)).items()
    # An empty object with a slash at its end stands for a folder.
    return {path.removeprefix(root).lstrip("/"): entry for path, entry in found if not path.endswith("/")}
