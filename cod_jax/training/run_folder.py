"""Folder of a run: its checkpoints by step, which of them are damaged, and the space that is left."""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from cod_jax import files, storage
from cod_jax.errors import UserError, is_out_of_memory, unusable_platform
from cod_jax.training import orbax_s3
from cod_jax.training.ranking import LOSS

# What Orbax adds to the name of a checkpoint that is being written.
_UNFINISHED = ".orbax-checkpoint-tmp"
_SYSTEM_ERROR = re.compile(r"os_error_code='?(\d+)")
_LONGEST_REASON = 200
# What Orbax adds to a complete checkpoint in storage that cannot rename it.
_COMPLETE = "commit_success.txt"
# The storage in which Orbax can write checkpoints.
STORAGE = ("gs://", orbax_s3.PREFIX)

Where = str | os.PathLike[str]
"""A run folder, or the address that takes its place for checkpoints."""
Place = Path | epath.Path
"""A folder, or an address in `STORAGE`."""


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read."""


def checkpoint_directory(workdir: Where) -> Place:
    """Return the folder of a run's checkpoints, absolute as Orbax requires."""
    if not files.is_address(workdir):
        return Path(workdir).absolute() / "checkpoints"
    storage.set_up_libraries()
    url = storage.as_url(workdir)
    if url.startswith(orbax_s3.PREFIX):
        orbax_s3.set_up()
    return epath.Path(url) / "checkpoints"


def _may_be_run(workdir: Where) -> bool:
    """Return whether a folder or address may hold checkpoints; other storage than `STORAGE` holds models only."""
    return not files.is_address(workdir) or storage.as_url(workdir).startswith(STORAGE)


@contextlib.contextmanager
def naming_storage(directory: Place) -> Iterator[None]:
    """Turn whatever fails at an address into one error that names it; a local folder has its usual errors.

    Raises:
        UserError: The storage cannot be used.
    """
    with contextlib.nullcontext() if isinstance(directory, Path) else storage.naming_address(str(directory)):
        yield


def steps_of(workdir: Where) -> list[int]:
    """Return the steps of a run's checkpoints in order, whether they can be read or not.

    This only lists the folder. All processes of a run would have to open a manager together, and they may not see a new
    folder at the same time. Orbax renames a complete checkpoint to its number, or marks it where it cannot.

    Raises:
        UserError: The storage of an address cannot be read.
    """
    if not _may_be_run(workdir):
        return []
    directory = checkpoint_directory(workdir)
    is_local = isinstance(directory, Path)
    with naming_storage(directory):
        found = [path for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
        return sorted(int(path.name) for path in found if is_local or (path / _COMPLETE).exists())


def latest_step(workdir: Where) -> int | None:
    """Return the step of a run's newest checkpoint, or None if there is none yet; see `steps_of`."""
    return max(steps_of(workdir), default=None)


def stages_of(workdir: Where) -> list[str]:
    """Return the names of the stages in a run folder; none if the run has only one."""
    if not _may_be_run(workdir):
        return []
    return sorted(path.parent.name for path in checkpoint_directory(workdir).parent.glob("stage*/checkpoints"))


@contextlib.contextmanager
def errors_that_name(setting: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the setting in errors about a folder that is neither a model folder nor a run folder.

    Raises:
        UserError: The folder cannot be read, or contains several stages.
    """
    if stages := stages_of(path):
        raise UserError(f"{setting} contains the stages {', '.join(stages)}; name one of them")
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting} must be a run folder or a model folder: {error}") from error


@contextlib.contextmanager
def naming_damage(directory: Place, step: int) -> Iterator[None]:
    """Turn whatever fails while a checkpoint is read into one error that names it.

    There is no list of exceptions, because a damaged file raises different ones in each part of the libraries.

    Raises:
        DamagedCheckpointError: The checkpoint cannot be read.
        FileNotFoundError: It is gone.
    """
    folder = directory / str(step)
    leave_out_closed_loops()
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or unusable_platform() is not None:
            raise
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; a run may have removed it meanwhile") from error
        reason = f"the checkpoint of step {step} in {directory} is damaged ({_without_details(error)})"
        raise DamagedCheckpointError(reason) from error


def _without_details(error: Exception) -> str:
    """Return the message of an error without the object that TensorStore puts at its end."""
    return reason_of(error).partition(" See full TensorStore details")[0]


def leave_out_closed_loops() -> None:
    """Keep the process from printing what each array of a failed operation reports after the first one.

    The first error is raised and ends the event loop of the operation. Every array that fails later prints a traceback
    that says only that the loop is closed.
    """
    if isinstance(sys.unraisablehook, _Hook):
        return
    sys.unraisablehook = _Hook(sys.unraisablehook)


@dataclasses.dataclass(frozen=True)
class _Hook:
    """Hook for errors that cannot be raised, which leaves out those of closed event loops."""

    usual: Callable[[Any], Any]

    def __call__(self, found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            self.usual(found)


def reason_of(error: BaseException) -> str:
    """Return why reading or writing failed, in one line; the messages of the libraries are long."""
    system = _SYSTEM_ERROR.search(str(error))
    text = os.strerror(int(system[1])) if system else files.reason(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def stored_numbers(directory: Place, step: int) -> dict[str, float]:
    """Return the numbers of the validation that rank a checkpoint, see `ranking.rank`; {} if it was not validated.

    Raises:
        DamagedCheckpointError: Their file is damaged.
    """
    with naming_damage(directory, step):
        file = directory / str(step) / "metrics" / "metrics"
        stored = json.loads(file.read_bytes()) if file.exists() else {LOSS: None}
        return {name: float(value) for name, value in {LOSS: stored[LOSS], **stored}.items() if value is not None}


def set_aside(directory: Place, step: int, why: str) -> Place:
    """Rename a checkpoint so that nothing reads it any more, and return its new place.

    Args:
        directory: Folder of the checkpoints.
        step: Step of the checkpoint.
        why: A word for the new name, such as "damaged".
    """
    names = (f"{step}.{why}{number or ''}" for number in range(1000))
    target = next(directory / name for name in names if not (directory / name).exists())
    if isinstance(directory, Path):
        (directory / str(step)).rename(target)
    else:
        storage.move(str(directory / str(step)), str(target), _COMPLETE)
    return target


def remove_unfinished(directory: Place, *, settle_s: float = 0.0) -> None:
    """Remove what a failed save has written, which would take the space that is needed.

    Args:
        directory: Folder of the checkpoints. At an address Orbax does it at the next start.
        settle_s: Time in seconds without anything new after which all is taken to be gone. Threads of a save that has
            failed may go on writing for a moment.
    """
    if not isinstance(directory, Path):
        return
    start = found_at = time.monotonic()
    while True:
        for path in directory.glob(f"*{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)
            found_at = time.monotonic()
        # What cannot be removed at all is left after a while.
        if time.monotonic() >= min(found_at + settle_s, start + 20 * settle_s):
            return
        time.sleep(settle_s / 10)


def free_bytes(directory: Place) -> int | float:
    """Return the space that is left where a folder is; infinity at an address."""
    return shutil.disk_usage(directory).free if isinstance(directory, Path) else math.inf


def size_bytes(folder: Place) -> int:
    """Return the size of all files in a folder."""
    if not isinstance(folder, Path):
        return sum(storage.list_files(folder).values())
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def checked_meta(meta: Any) -> dict[str, Any]:
    """Return the plain values of a checkpoint after checking that this program wrote them.

    Raises:
        UserError: They lack something, or something has another type.
    """
    wanted = {"config": dict, "config.model": dict, "data": dict, "shapes": dict}
    for name, kind in wanted.items():
        value = meta
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise UserError(f"expected its metadata to have {name}, got {type(value).__name__}")
    return meta
