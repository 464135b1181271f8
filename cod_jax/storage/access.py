"""File systems of addresses, requests that are repeated, and errors that name the address."""

import contextlib
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cod_jax import files
from cod_jax.errors import UserError, reason_of

# A request that fails is repeated for this time, with pauses that double. Storage may not answer for some minutes.
_PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 180.0, 1.0, 15.0
# What the same request will not mend: errors of Python, and those of the libraries by their names.
_LASTING = (FileNotFoundError, PermissionError, NotImplementedError, ImportError, ValueError)
_LASTING_NAMES = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ProfileNotFound")

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class StorageError(UserError):
    """Storage does not answer, or refuses to; what is in it is not known."""


def as_url(address: str | os.PathLike[str]) -> str:
    """Return an address, or what a `Path` has made of it, in its usual form and without a slash at its end."""
    # A `Path` keeps one slash of two.
    return re.sub(r"^([^:]+):/+", r"\1://", os.fspath(address)).rstrip("/")


def open_address(url: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    scheme, _, rest = url.partition("://")
    system = _system(f"{scheme}://{rest.partition('/')[0]}")
    return system, system._strip_protocol(url).rstrip("/")


@functools.cache
def _system(bucket: str) -> Any:
    """Return the file system of a bucket, one for all threads: fsspec would give each thread connections of its own."""
    import fsspec

    set_up_libraries()
    return fsspec.core.url_to_fs(bucket)[0]


@functools.cache
def set_up_libraries() -> None:
    """Tell gcsfs and s3fs what fits all uses here; without fsspec it does nothing."""
    with contextlib.suppress(ImportError):
        from fsspec.config import conf

        # Other processes write into a folder, and so do libraries beside gcsfs.
        for name in ("gcs", "gs", "s3"):
            conf.setdefault(name, {})["use_listings_cache"] = False
    # They print tracebacks of errors that they also raise.
    for name in ("gcsfs", "fsspec.prefetcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def make_s3_patient() -> None:
    """Let s3fs repeat what fails for three minutes instead of three seconds, for callers that do not repeat it."""
    with contextlib.suppress(ImportError):  # whoever opens an address says so
        import s3fs

        s3fs.S3FileSystem.retries = 20


def retried(request: Callable[[], Result]) -> Result:
    """Repeat a request that fails, unless that cannot help or has been tried for as long as is worth waiting."""
    end, pause, told = time.monotonic() + _PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS, False
    while True:
        try:
            return request()
        except Exception as error:
            if _is_lasting(error) or time.monotonic() + pause > end:
                raise
            if not told:
                _logger.warning(
                    "storage does not answer (%s: %s); trying again for %.0f seconds",
                    type(error).__name__,
                    reason_of(error),
                    _PATIENCE_SECONDS,
                )
                told = True
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _is_lasting(error: Exception) -> bool:
    """Return whether the same request would fail again."""
    if isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES or _is_full_disk(error):
        return True
    # Of gcsfs, for missing rights.
    return str(getattr(error, "code", "")) in ("400", "401", "403") or str(error).startswith("Forbidden")


def _is_full_disk(error: Exception) -> bool:
    """Return whether a file did not fit on a disk of this machine."""
    return isinstance(error, OSError) and error.errno in files.FULL_DISK


@contextlib.contextmanager
def naming_address(url: str) -> Iterator[None]:
    """Name an address in whatever fails while it is used; each library has errors of its own.

    Raises:
        StorageError: The storage does not answer, or refuses to.
        UserError: There is nothing at the address, or the extra is missing.
        OSError: A disk of this machine is full.
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
        if _is_full_disk(error):  # the storage did answer; commands say where there is no room
            raise
        raise StorageError(f"{url} cannot be used ({type(error).__name__}: {reason_of(error)})") from error
