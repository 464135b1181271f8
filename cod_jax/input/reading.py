"""Reading records of ArrayRecord files, on disks and in storage."""

from collections.abc import Sequence

import grain

from cod_jax import files, storage
from cod_jax.errors import reason_of


def open_records(paths: Sequence[str]) -> grain.sources.ArrayRecordDataSource:
    """Return the records of files, one after the other.

    Args:
        paths: Paths, or addresses that array_record reads. "PATH[first:end]" takes a part of the records, and then the
            file is opened when one is read.

    Raises:
        RuntimeError: A file cannot be opened.
    """
    return grain.sources.ArrayRecordDataSource(list(paths))


def check_answered(error: RuntimeError, location: str) -> None:
    """Tell storage that does not answer from damaged files, which are left out.

    Raises:
        StorageError: The storage of an address did not answer.
    """
    if files.is_address(location) and "Corrupted" not in str(error):
        raise storage.StorageError(f"{location} cannot be used ({reason_of(error)})") from error
