"""Train a codec, or go on training it: `python -m cod_jax.train --config FILE[:PRESET] --workdir DIR`."""

import contextlib
import dataclasses
import difflib
import fcntl
import functools
import importlib.util
import inspect
import logging
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_dict, config_flags
from tqdm import tqdm

from cod_jax.errors import UserError
from cod_jax.files import make_directory
from cod_jax.training.config import flatten
from cod_jax.training.stopping import exit_when_told

PROGRAM = "cod_jax.train"
LOG_FILE = "train.log"
LOCK_FILE = ".lock"
_WHERE_FIELDS_ARE = (
    "configs/base.py lists the fields, configs/presets.py those of other stages, denoisers and bottlenecks, which the "
    "file has with another option after its colon"
)
INTERRUPTED = "interrupted; the same command goes on from the newest checkpoint, if there is one"
DESCRIPTION = f"""usage: python -m {PROGRAM} --config FILE[:PRESET] --workdir DIR [--config.FIELD=VALUE ...]

Train a codec. The same command resumes from the newest checkpoint in the work folder; SIGTERM and Ctrl-C save and
exit. configs/base.py lists the fields. Watch a run with: tensorboard --logdir DIR

The preset "all" of a file with stages runs them one after the other in DIR/stage1, DIR/stage2, ...: finished ones are
skipped, the unfinished one is resumed, and each starts from the one before. Settings given here are all stages'.

examples:
  python -m {PROGRAM} --config configs/tiny.py --workdir runs/tiny --config.data.source=photos
  python -m {PROGRAM} --config configs/lite.py:all --workdir runs/lite --config.data.source=photos
  python -m {PROGRAM} --config configs/pixel.py:2,size=114m --workdir runs/pixel2 --config.data.source=photos \\
      --config.init_from=runs/pixel1
  python -m {PROGRAM} --config configs/lite.py --workdir runs/lite --config.data.source=photos --config.mesh.fsdp=8

options:
  --config FILE[:PRESET]       settings, and which of the file's variants
  --workdir DIR                folder of the run: checkpoints, TensorBoard files, train.log
  --config.FIELD=VALUE         change a setting; a tuple is written as --config.FIELD="('a', 'b')"
  --distributed                join the other processes of the run; every host runs the same command. TPU pods and
                               Slurm say who they are, elsewhere give the next three
  --coordinator_address HOST:PORT, --num_processes N, --process_id I
  --debug                      show where in the program an error was found
  --help                       show this text
"""


class UsageError(Exception):
    """The command line or the settings cannot be used; the message is one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 done or told to stop, 1 failed, 2 unusable arguments or settings, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("-h", "--help", "-help", "-?") for argument in arguments):
        print(DESCRIPTION, end="")
        return 0
    # Orbax and grain warn about what is normal here.
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        stages = stage_arguments(arguments)
        parsed = [parse_arguments(stage) for stage in stages.values()]
        if not parsed[0].workdir:
            raise UsageError("--workdir is missing; name the folder of the run")
        # Before joining other processes: jax.distributed then puts its own handler of SIGTERM in the place of this one.
        with exit_when_told(f"{PROGRAM}: error: {INTERRUPTED}"):
            _join_processes(parsed[0])
            return _train(dict(zip(stages, parsed, strict=True)))
    except UsageError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, 130)


def stage_arguments(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The command line of each stage, if the preset is "all"; else the command line itself under the name "".

    Args:
        arguments: Those after the program's name.

    Raises:
        UsageError: The config file cannot be used, or has no stages.
    """
    name, rest = _split_config(arguments)
    path, _, preset = name.partition(":")
    first, comma, options = preset.partition(",")
    if first != "all":
        return {"": list(arguments)}
    stages = getattr(_load_module(path), "STAGES", None)
    if not stages:
        raise UsageError(f"{path} has no stages; leave out :all")
    names = {stage: f"{path}:{stage}{comma}{options}" for stage in stages}
    configs = [_load_config(name) for name in names.values()]
    fields = {stage: _field_names(config) for stage, config in zip(names, configs, strict=True)}
    _check_fields(configs, rest)
    return {
        stage: [f"--config={name}", *_own_settings(rest, fields[stage], set().union(*fields.values()))]
        for stage, name in names.items()
    }


def _own_settings(arguments: Sequence[str], own: set[str], all_stages: set[str]) -> list[str]:
    """Leave out settings of fields that only other stages have, such as the teacher of a distillation."""
    kept, index = [], 0
    while index < len(arguments):
        name, equals, _ = arguments[index].lstrip("-").partition("=")
        has_value_after = not equals and index + 1 < len(arguments) and not arguments[index + 1].startswith("--")
        length = 2 if has_value_after and name.startswith("config.") else 1
        if name.removeprefix("config.") in own or name.removeprefix("config.") not in all_stages:
            kept += arguments[index : index + length]
        index += length
    return kept


def parse_arguments(arguments: Sequence[str]) -> flags.FlagValues:
    """Understand the command line, for other commands that take the trainer's settings too.

    Args:
        arguments: Those after the program's name.

    Returns:
        The flags; `config` is what the config file gives, with the fields that were set.

    Raises:
        UsageError: It cannot be used.
    """
    name, rest = _split_config(arguments)
    config = _load_config(name)
    _check_fields([config], rest)
    # Apart from absl's global flags, so that the command can be called again in one process.
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=[PROGRAM, *rest])
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_boolean("distributed", False, "", flag_values=values)
    flags.DEFINE_string("coordinator_address", None, "", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)
    flags.DEFINE_boolean("debug", False, "", flag_values=values)
    try:
        unnamed = values([PROGRAM, *rest])[1:]
    except flags.Error as error:
        raise UsageError(error) from error
    if unnamed:
        raise UsageError(f"unexpected argument {unnamed[0]!r}; settings are given as --config.FIELD=VALUE")
    return values


def _split_config(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The value of --config and the other arguments."""
    for index, argument in enumerate(arguments):
        if argument.startswith("-") and argument.lstrip("-").partition("=")[0] == "config":
            following = index + (1 if "=" in argument else 2)
            value = argument.partition("=")[2] if "=" in argument else "".join(arguments[index + 1 : following])
            if value:
                return value, [*arguments[:index], *arguments[following:]]
    raise UsageError(f"--config is missing; configs/ holds files to start from, see python -m {PROGRAM} --help")


def _load_module(path: str) -> types.ModuleType:
    """Run a config file."""
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location("cod_jax_config", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"there is no config file {path}; configs/ holds some to start from")
    # Config files import their neighbours as `configs.base`, from wherever the command is run.
    if str(file.parent.parent) not in sys.path:
        sys.path.append(str(file.parent.parent))
    module = importlib.util.module_from_spec(spec)
    with _naming_file(path):
        spec.loader.exec_module(module)
    return module


def _load_config(name: str) -> config_dict.ConfigDict:
    """Run `get_config` of a file, with the preset after the colon."""
    path, *preset = name.split(":", 1)
    module = _load_module(path)
    with _naming_file(path):
        if preset and not inspect.signature(module.get_config).parameters:
            raise UsageError(f"{path} has no presets; leave out :{preset[0]}")
        return module.get_config(*preset)


@contextlib.contextmanager
def _naming_file(path: str) -> Iterator[None]:
    """Say which config file is wrong."""
    try:
        yield
    except ValueError as error:
        raise UsageError(error) from error
    except (SyntaxError, ImportError, NameError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"config file {path} cannot be used: {type(error).__name__}: {error}") from error


def _field_names(config: config_dict.ConfigDict) -> set[str]:
    """Dotted names of the fields, and of what holds them."""
    fields = flatten(config.to_dict())
    return {*fields, *(field.rpartition(".")[0] for field in fields)}


def _check_fields(configs: Sequence[config_dict.ConfigDict], arguments: Sequence[str]) -> None:
    """Refuse a --config.FIELD that none of these configs has, naming the nearest that one has."""
    known = set().union(*map(_field_names, configs))
    settable = sorted(set().union(*(flatten(config.to_dict()) for config in configs)))
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if name.startswith("config.") and (field := name.removeprefix("config.")) not in known:
            others = [other for other in settable if not field.startswith(f"{other}.")]
            near = difflib.get_close_matches(field, others, n=1, cutoff=0.72)
            hint = f"did you mean --config.{near[0]}?" if near else _WHERE_FIELDS_ARE
            raise UsageError(f"unknown field --{name}; {hint}")


def _join_processes(values: flags.FlagValues) -> None:
    """Start `jax.distributed` if this process is one of several.

    Raises:
        UsageError: The flags are incomplete, or the processes do not find each other.
    """
    given = {name: values[name].value for name in ("coordinator_address", "num_processes", "process_id")}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given) and not values.distributed:
        return
    if missing and len(missing) < len(given):
        raise UsageError(f"{', '.join(missing)} is missing; the three flags of a process go together")
    import jax

    # The way in which processes exchange arrays on CPUs; other devices do not look at it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(values.coordinator_address, values.num_processes, values.process_id)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"cannot join the other processes ({_last_line(error)}); give --coordinator_address, --num_processes and "
            "--process_id"
        ) from error


def _train(stages: Mapping[str, flags.FlagValues]) -> int:
    """Everything after the command line is understood; JAX looks for its devices here."""
    import jax

    from cod_jax.interop.frozen_networks import load_frozen
    from cod_jax.models.functional import Params
    from cod_jax.training.config import TrainConfig
    from cod_jax.training.loop import check, is_finished, train
    from cod_jax.training.report import TrainingError
    from cod_jax.training.teacher import load_teacher

    values = next(iter(stages.values()))
    workdir = Path(values.workdir)
    load_frozen_once = functools.cache(load_frozen)
    runs: list[tuple[TrainConfig, Path]] = []
    try:
        for stage, stage_values in stages.items():
            config = TrainConfig.from_dict(stage_values.config.to_dict())
            if runs:
                config = dataclasses.replace(config, init_from=str(runs[-1][1]))
            runs.append((config, workdir / f"stage{stage}" if stage else workdir))
    except UserError as error:
        raise UsageError(error) from error
    is_first = jax.process_index() == 0
    progress = is_first and sys.stderr.isatty()
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

                if not train(config, directory, load_frozen=load, progress=progress):
                    break
    except (UserError, OSError, TrainingError, jax.errors.JaxRuntimeError) as error:
        if values.debug:
            raise
        if is_first and is_new:
            for directory in dict.fromkeys((*(directory for _, directory in runs), workdir)):
                _remove_if_empty(directory)
        return _fail(error, 1)
    return 0


def _remove_if_empty(workdir: Path) -> None:
    """Remove a folder in which nothing was done, so that a slip in a command leaves nothing behind."""
    from cod_jax.training.checkpoint import checkpoint_directory

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
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

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


def _last_line(error: BaseException) -> str:
    """The part of a message that is for people: libraries put tracebacks in front of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^\w+Error: ", "", lines[-1]) if lines else type(error).__name__


def _fail(message: object, code: int) -> int:
    print(f"{PROGRAM}: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
