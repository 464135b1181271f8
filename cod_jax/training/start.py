"""Start of a run with one or several stages, which locks its folder and writes a log file."""

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.files import make_directory
from cod_jax.locks import lock
from cod_jax.models.functional import Params
from cod_jax.parallel import last_words
from cod_jax.parallel.processes import leaving_with_lost_processes
from cod_jax.storage import Mirror
from cod_jax.training.config import TrainConfig
from cod_jax.training.loop import check, is_finished, place_of, train
from cod_jax.training.picture_metrics import MetricLoader, no_metrics
from cod_jax.training.run_folder import checkpoint_directory
from cod_jax.training.teacher import load_teacher

LOG_FILE = "train.log"
LOCK_FILE = ".lock"


def run_stages(
    stages: Mapping[str, Mapping[str, Any]],
    workdir: Path,
    load_frozen: Callable[[tuple[str, ...], str], Mapping[str, Params]],
    load_metrics: MetricLoader = no_metrics,
    profile_steps: tuple[int, int] | None = None,
    address: str = "",
) -> bool:
    """Train one stage after the other; finished stages are skipped, and an unfinished one is resumed.

    JAX looks for its devices here. If the start fails, a new folder without results is removed.

    Args:
        stages: Settings by the name of the stage, which is also part of its folder's name; "" uses the run folder.
        workdir: Run folder. Each stage starts from the one before.
        load_frozen: Function that reads frozen networks, given their names and a folder.
        load_metrics: Function that returns metrics of the validation, given their classes.
        profile_steps: First and last step to trace, in each stage; see `loop.train`.
        address: Address of remote storage at which the files of the run folder are kept too, apart from checkpoints.

    Returns:
        Whether the last stage is finished. Otherwise the run was told to stop.

    Raises:
        UserError: Settings cannot be used, or another run is using the folder.
        TrainingError: The training cannot continue.
        OSError: A file cannot be read or written.
    """
    runs = _runs(stages, workdir)
    is_first = jax.process_index() == 0
    is_new = not workdir.exists()
    try:
        make_directory(workdir)
        log = workdir / (LOG_FILE if is_first else f"train.{jax.process_index()}.log")
        with contextlib.ExitStack() as stack:
            stack.enter_context(_alone(workdir))
            if address:
                mirror = stack.enter_context(Mirror(workdir, address, _kept_by(log.name, is_first)))
                # A process that leaves at once does not come to the end of the mirror.
                stack.enter_context(last_words.finishing(mirror.copy))
            stack.enter_context(_log_to(log, everything=is_first))
            stack.enter_context(leaving_with_lost_processes())
            return _run_unfinished(runs, load_frozen, load_metrics, profile_steps)
    except (UserError, OSError):
        if is_first and is_new:
            for directory in dict.fromkeys((*(directory for _, directory in runs), workdir)):
                _remove_if_empty(directory)
        raise


def _run_unfinished(
    runs: list[tuple[TrainConfig, Path]],
    load_frozen: Callable[[tuple[str, ...], str], Mapping[str, Params]],
    load_metrics: MetricLoader,
    profile_steps: tuple[int, int] | None,
) -> bool:
    """Train the stages that are not finished, and return whether all are in the end."""
    is_first = jax.process_index() == 0
    unfinished = [run for run in runs if not is_finished(*run)]
    for config, _ in unfinished[1:]:
        check(config, load_metrics)
    for config, directory in unfinished:
        directory.mkdir(exist_ok=True)

        # Read again by each stage: a copy that waits for the next stage would take memory for days.
        def load(config: TrainConfig = config) -> Mapping[str, Params]:
            networks = load_frozen(config.frozen_names, config.frozen.weights)
            teacher = config.objective.teacher
            return {**networks, "teacher": load_teacher(teacher)} if teacher else networks

        show = is_first and sys.stderr.isatty()
        if not train(
            config,
            directory,
            load_frozen=load,
            load_metrics=load_metrics,
            progress=show,
            profile_steps=profile_steps,
        ):
            return False
    return True


def _runs(stages: Mapping[str, Mapping[str, Any]], workdir: Path) -> list[tuple[TrainConfig, Path]]:
    """Return the settings and the folder of each stage."""
    runs: list[tuple[TrainConfig, Path]] = []
    for stage, values in stages.items():
        config = TrainConfig.from_dict(values, trusted=True)
        if runs:
            config = dataclasses.replace(config, init_from=str(place_of(*runs[-1])))
        if stage and config.checkpoint.address:
            address = f"{config.checkpoint.address.rstrip('/')}/stage{stage}"
            config = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, address=address))
        runs.append((config, workdir / f"stage{stage}" if stage else workdir))
    return runs


def _kept_by(log: str, is_first: bool) -> Callable[[PurePath], bool]:
    """Return which files a process keeps at an address: the first all but checkpoints, another one its log."""

    def is_kept(name: PurePath) -> bool:
        if not is_first:
            return name.name == log
        return "checkpoints" not in name.parts and not name.name.startswith(".")

    return is_kept


def _remove_if_empty(workdir: Path) -> None:
    """Remove a folder without results, so that a mistake in a command leaves nothing behind."""
    checkpoints = checkpoint_directory(workdir)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()
    logs = {path.name for path in workdir.glob("train*.log")}
    if workdir.is_dir() and {path.name for path in workdir.iterdir()} <= {*logs, LOCK_FILE}:
        for name in (*logs, LOCK_FILE):
            (workdir / name).unlink(missing_ok=True)
        workdir.rmdir()


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Lock a folder and its stages against other runs; the locks end with the process.

    The run of a single stage keeps runs of all stages away, but not those of other stages. The first process holds the
    locks for all processes of a run and tells them the result.

    Raises:
        UserError: Another run is using one of the folders.
    """
    with contextlib.ExitStack() as stack:
        taken = _lock_all(stack, workdir) if jax.process_index() == 0 else None
        free = taken is None
        if jax.process_count() > 1:
            free = bool(multihost_utils.broadcast_one_to_all(np.int32(free)))
        if not free:
            raise UserError(f"{taken or workdir} is in use by another run; wait for it or choose another --workdir")
        yield


def _lock_all(stack: contextlib.ExitStack, workdir: Path) -> Path | None:
    """Lock a folder, its stages and the run that it is a stage of; return the first that another run is using."""
    if not _lock(stack, workdir):
        return workdir
    # In this order, because a stage that starts meanwhile looks at the folder around it last.
    for stage in sorted(file.parent for file in workdir.glob(f"stage*/{LOCK_FILE}")):
        if not _lock(stack, stage):
            return stage
    around = workdir.resolve().parent
    is_stage = workdir.resolve().name.startswith("stage") and (around / LOCK_FILE).exists()
    return around if is_stage and not _lock(stack, around, shared=True) else None


def _lock(stack: contextlib.ExitStack, folder: Path, *, shared: bool = False) -> bool:
    """Lock a folder until the stack is closed, and return whether it was free."""
    return lock(stack.enter_context((folder / LOCK_FILE).open("a")), shared=shared)


class _TerminalHandler(logging.Handler):
    """Handler that writes lines to standard output above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _FileHandler(logging.FileHandler):
    """Handler that writes lines to a file, and goes on without them where the disk is full.

    The next checkpoint finds the full disk and says so.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """Print an error of another kind only."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _log_to(file: Path, *, everything: bool = True) -> Iterator[None]:
    """Send the package's log to the terminal and a file.

    What ends the run is the last line of the file. The terminal gets it from the command.

    Args:
        file: File of this process's log.
        everything: Whether the terminal gets more than warnings, of which there is one for all processes of a run.
    """
    logger = logging.getLogger("cod_jax")
    handlers: list[logging.Handler] = [_TerminalHandler(logging.INFO if everything else logging.WARNING)]
    handlers.append(_FileHandler(file, encoding="utf-8", errors="backslashreplace"))
    previous = logger.level, logger.propagate
    logger.propagate = False
    logger.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        logger.removeHandler(handlers[0])
        is_bug = isinstance(error, Exception) and not isinstance(error, UserError | OSError)
        logger.error("error: %s", files.reason(error), exc_info=error if is_bug else None)
        raise
    finally:
        logger.level, logger.propagate = previous
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
