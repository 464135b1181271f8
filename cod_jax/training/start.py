"""Start a run in its folder: one stage or several, alone in the folder, with a log file."""

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
    """Train one stage after the other; finished ones are skipped, the unfinished one is resumed.

    JAX looks for its devices here. The folder is removed if it is new and nothing was done in it.

    Args:
        stages: Settings of each stage by its name, which names its folder in the work folder; "" is the work folder.
        workdir: The work folder. Each stage starts from the one before.
        load_frozen: Reads frozen networks by their names from a folder.

    Raises:
        UserError: Settings cannot be used, or the folder is in use by another run.
        WorkError: The training cannot go on.
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
        config = TrainConfig.from_dict(values)
        if runs:
            config = dataclasses.replace(config, init_from=str(runs[-1][1]))
        runs.append((config, workdir / f"stage{stage}" if stage else workdir))
    return runs


def _remove_if_empty(workdir: Path) -> None:
    """Remove a folder in which nothing was done, so that a slip in a command leaves nothing behind."""
    checkpoints = checkpoint_directory(workdir)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()
    if workdir.is_dir() and {path.name for path in workdir.iterdir()} <= {LOG_FILE, LOCK_FILE}:
        (workdir / LOG_FILE).unlink(missing_ok=True)
        (workdir / LOCK_FILE).unlink(missing_ok=True)
        workdir.rmdir()


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Refuse a folder that another run is using; the lock goes with the process, however it ends.

    The first process holds it for all of a run, and all learn how it went.

    Raises:
        UserError: Another process holds the folder.
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
                # Some network file systems have no locks; two runs in one folder are the user's to avoid there.
                pass
        if jax.process_count() > 1:
            free = bool(multihost_utils.broadcast_one_to_all(np.int32(free)))
        if not free:
            raise UserError(f"{workdir} is in use by another run; wait for it or choose another --workdir")
        yield


class _TerminalHandler(logging.Handler):
    """Writes lines to standard output above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


@contextlib.contextmanager
def _log_to(file: Path | None) -> Iterator[None]:
    """Send the package's log to the terminal and a file; without a file warnings only, to the terminal."""
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
