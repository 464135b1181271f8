"""Start of a run with one or several stages, which locks its folder and writes a log file."""

import contextlib
import dataclasses
import fcntl
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from cod_jax.errors import UserError
from cod_jax.files import make_directory
from cod_jax.models.functional import Params
from cod_jax.training.checkpoint import checkpoint_directory
from cod_jax.training.config import TrainConfig
from cod_jax.training.loop import check, is_finished, train
from cod_jax.training.teacher import load_teacher

LOG_FILE = "train.log"
LOCK_FILE = ".lock"


def run_stages(
    stages: Mapping[str, Mapping[str, Any]],
    workdir: Path,
    load_frozen: Callable[[tuple[str, ...], str], Mapping[str, Params]],
) -> None:
    """Train one stage after the other; finished stages are skipped, and an unfinished one is resumed.

    JAX looks for its devices here. If the start fails, a new folder without results is removed.

    Args:
        stages: Settings by the name of the stage, which is also part of its folder's name; "" uses the work folder.
        workdir: Work folder. Each stage starts from the one before.
        load_frozen: Function that reads frozen networks, given their names and a folder.

    Raises:
        UserError: Settings cannot be used, or another run is using the folder.
        TrainingError: The training cannot continue.
        OSError: A file cannot be read or written.
    """
    runs = _runs(stages, workdir)
    load_frozen_once = functools.cache(load_frozen)
    is_first = jax.process_index() == 0
    is_new = not workdir.exists()
    try:
        make_directory(workdir)
        with _alone(workdir), _log_to(workdir / LOG_FILE if is_first else None):
            unfinished = [run for run in runs if not is_finished(*run)]
            for config, _ in unfinished[1:]:
                check(config)
            for config, directory in unfinished:
                directory.mkdir(exist_ok=True)

                def load(config: TrainConfig = config) -> Mapping[str, Params]:
                    networks = load_frozen_once(config.frozen_names, config.frozen.weights)
                    teacher = config.objective.teacher
                    return {**networks, "teacher": load_teacher(teacher)} if teacher else networks

                progress = is_first and sys.stderr.isatty()
                if not train(config, directory, load_frozen=load, progress=progress):
                    break
    except (UserError, OSError):
        if is_first and is_new:
            for directory in dict.fromkeys((*(directory for _, directory in runs), workdir)):
                _remove_if_empty(directory)
        raise


def _runs(stages: Mapping[str, Mapping[str, Any]], workdir: Path) -> list[tuple[TrainConfig, Path]]:
    """Return the settings and the folder of each stage."""
    runs: list[tuple[TrainConfig, Path]] = []
    for stage, values in stages.items():
        config = TrainConfig.from_dict(values, trusted=True)
        if runs:
            config = dataclasses.replace(config, init_from=str(runs[-1][1]))
        runs.append((config, workdir / f"stage{stage}" if stage else workdir))
    return runs


def _remove_if_empty(workdir: Path) -> None:
    """Remove a folder without results, so that a mistake in a command leaves nothing behind."""
    checkpoints = checkpoint_directory(workdir)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()
    if workdir.is_dir() and {path.name for path in workdir.iterdir()} <= {LOG_FILE, LOCK_FILE}:
        (workdir / LOG_FILE).unlink(missing_ok=True)
        (workdir / LOCK_FILE).unlink(missing_ok=True)
        workdir.rmdir()


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Lock a folder against other runs; the lock ends with the process.

    The first process holds the lock for all processes of a run and tells them the result.

    Raises:
        UserError: Another run is using the folder.
    """
    with contextlib.ExitStack() as stack:
        free = True
        if jax.process_index() == 0:
            file = stack.enter_context((workdir / LOCK_FILE).open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:
                # Some network file systems have no locks, so users must not start two runs in one folder there.
                pass
        if jax.process_count() > 1:
            free = bool(multihost_utils.broadcast_one_to_all(np.int32(free)))
        if not free:
            raise UserError(f"{workdir} is in use by another run; wait for it or choose another --workdir")
        yield


class _TerminalHandler(logging.Handler):
    """Handler that writes lines to standard output above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


@contextlib.contextmanager
def _log_to(file: Path | None) -> Iterator[None]:
    """Send the package's log to the terminal and a file, or without a file only warnings to the terminal."""
    logger = logging.getLogger("cod_jax")
    handlers: list[logging.Handler] = [_TerminalHandler()]
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8", errors="backslashreplace"))
    previous = logger.level, logger.propagate
    logger.propagate = False
    logger.setLevel(logging.INFO if file is not None else logging.WARNING)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.level, logger.propagate = previous
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
