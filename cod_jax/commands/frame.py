"""Frame of all commands: exit statuses, errors, warnings, signals, and output that cannot be written."""

import argparse
import contextlib
import dataclasses
import gc
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NoReturn, cast

from cod_jax import files
from cod_jax.commands.full_disk import full_disk
from cod_jax.errors import UserError, WorkError, too_little_memory, unusable_platform

DONE, FAILED, NOTHING_TRIED, HUNG_UP, INTERRUPTED, TERMINATED = 0, 1, 2, 129, 130, 143
EXIT_STATUS = """
exit status:
  0    everything is done
  1    something failed: some or all pictures, or the work after it had begun
  2    nothing was tried: wrong usage, or what the command line names cannot be used
  130  interrupted by Ctrl-C; 143: terminated by SIGTERM; 129: its terminal was closed
"""
# Errors that say that a path on the command line cannot be used; other errors of the system stop work under way.
UNUSABLE_PATH = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
# JAX's warning about a program, such as "Error writing ... for 'jit_f': OSError: [Errno 28] No space left on device".
_CACHE_WARNING = re.compile(
    r"Error (reading|writing) persistent compilation cache entry .*?: \w+: (?:\[Errno \d+\] )?(.*)", re.DOTALL
)
_CACHE_TEXTS = {
    "writing": "compiled programs cannot be kept in {place} ({reason}), so they are compiled each time",
    "reading": "compiled programs in {place} are damaged ({reason}), so they are compiled again; remove that folder",
}
# The trainer gives its own.
_MEMORY_ADVICE = "take fewer or smaller pictures at a time, or end other programs that use this memory"
# Options that name the place where a command writes.
_OUTPUTS = ("output", "workdir")
# What the extras of pyproject.toml install beside the base, by the name of the import.
EXTRAS = {
    "absl": "train",
    "bjontegaard": "eval",
    "apache_beam": "beam",
    "array_record": "data",
    "clu": "train",
    "etils": "train",
    "grain": "train",
    "ml_collections": "train",
    "optax": "train",
    "orbax": "train",
    "tensorboard": "train",
    "importlib_resources": "tfds",
    "tensorflow_datasets": "tfds",
    "imagecodecs": "eval",
    "matplotlib": "demo",
    "mozjpeg_lossless_optimization": "eval",
    "scipy": "eval",
    "skimage": "demo",
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, as a module of this package declares it.

    Attributes:
        summary: What the command does, as a verb without a subject.
        add_options: Adds the options.
        run: Does the work. It gets the parsed options and returns `DONE` or `FAILED`. Errors of the kinds `UserError`
            and `OSError` are for the frame to catch.
        epilog: Examples and explanations below the options, or a function that returns them when they are shown.
        device: How the command uses JAX: not in this process, with as little device memory as it needs, or with all of
            the device memory.
        trainer_arguments: Whether the command takes the trainer's settings among its own options (as `args.settings`),
            or all arguments of another program behind `--` (as `args.trainer`).
        behind: What the arguments behind `--` are for, as the help names it.
        addresses: Names of the arguments that may be addresses of remote storage; all others are local.
        fetched: Names of further ones that may be addresses, of which the command gets local copies.
    """

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    epilog: str | Callable[[], str] = ""
    device: Literal["none", "shared", "whole"] = "none"
    trainer_arguments: Literal["none", "settings", "after --"] = "none"
    behind: str = "cod train"
    addresses: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()


class Parser(argparse.ArgumentParser):
    """A parser whose errors are those of users, and whose epilog may be made when it is shown."""

    def __init__(self, *, epilog: str | Callable[[], str] = "", **options: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self._make_epilog = epilog

    def format_help(self) -> str:
        """Return the help, which ends with the exit statuses."""
        self.epilog = (self._make_epilog if isinstance(self._make_epilog, str) else self._make_epilog()) + EXIT_STATUS
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{message}; see {self.prog} --help")


def say(text: str) -> None:
    """Print a line of any text on standard output."""
    _write_line(files.printable(text), sys.stdout)


def say_json(values: Mapping[str, Any], *, elsewhere: bool = False) -> None:
    """Print a line of JSON on standard output, or on standard error if that is for data."""
    _write_line(json.dumps(values), sys.stderr if elsewhere else sys.stdout)


def report(program: str, text: str) -> None:
    """Print a line about the progress on standard error, unless that is a terminal, which shows a bar."""
    if not sys.stderr.isatty():
        _write_line(files.printable(f"{program}: {text}"), sys.stderr)


def print_error(program: str, text: str) -> None:
    """Print an error, or a warning, as one line on standard error."""
    _write_line(files.printable(f"{program}: error: {text}"), sys.stderr)


def read_data(limit: int = -1) -> bytes:
    """Return the bytes on standard input.

    Args:
        limit: Read no more than this many; -1 reads all.

    Raises:
        OSError: They cannot be read.
    """
    return b"" if sys.stdin is None else sys.stdin.buffer.read(limit)


def write_data(data: bytes) -> None:
    """Write bytes on standard output, where they are what the command was asked for.

    Raises:
        UserError: They cannot be written, as when the reader has gone or standard output is closed.
    """
    cast(_Output, sys.stdout).write_data(data)


def fail(args: argparse.Namespace, error: BaseException, name: str = "") -> None:
    """Print why something failed, with the traceback if the user wants it.

    Args:
        args: The options of the command.
        error: What stopped it.
        name: Which of several files failed.
    """
    if args.debug:
        traceback.print_exception(error)
    reason = files.reason(error)
    print_error(args.program, f"{name}: {reason}" if name and not reason.startswith(f"{name}: ") else reason)


def run(command: Command, args: argparse.Namespace, fetch: Callable[[argparse.Namespace], None]) -> int:
    """Run a command and turn what stops it into a line and an exit status.

    The same mistake has the same status in every command. An error of another kind is a bug, and is not caught.

    Args:
        command: The command.
        args: Its options.
        fetch: Copies what the options name at addresses, which may take as long as the work.
    """
    _set_up_jax(command.device)
    try:
        with files.clean_exit_on_sigterm(), _warnings_as_lines(args.program):
            fetch(args)
            return command.run(args)
    except (UserError, OSError) as error:
        fail(args, _full_disk(error, args) or error)
        tried = isinstance(error, WorkError) or (isinstance(error, OSError) and not isinstance(error, UNUSABLE_PATH))
        return FAILED if tried else NOTHING_TRIED
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        fail(args, UserError(f"{args.program} needs the extra {extra}: pip install 'cod_jax[{extra}]'"))
        return NOTHING_TRIED
    except KeyboardInterrupt:
        print_error(args.program, "interrupted")
        return INTERRUPTED
    except Exception as error:
        if (full := _full_disk(error, args)) is not None:
            fail(args, full)
            return FAILED
        if (small := too_little_memory(error, _MEMORY_ADVICE)) is not None:
            fail(args, small)
            return FAILED
        if (unusable := unusable_platform()) is None:
            raise
        fail(args, unusable)
        return NOTHING_TRIED
    except SystemExit as stop:
        if stop.code not in (TERMINATED, HUNG_UP):
            raise
        print_error(args.program, "terminated")
        return int(stop.code)


def _full_disk(error: Exception, args: argparse.Namespace) -> WorkError | None:
    """Return the error about a full disk, None if something else stopped the command."""
    return full_disk(error, [place for name in _OUTPUTS if isinstance(place := getattr(args, name, None), str)])


@contextlib.contextmanager
def standard_streams(program: str) -> Iterator[Callable[[int], int]]:
    """Let the work go on when what it prints cannot be written.

    One rule holds for all commands. What is printed tells of the work: a reader that has gone (`| head`) and a stream
    that was closed before are no errors, and the status is that of the work. Anything else that keeps standard output
    or standard error from being written, such as a full disk, is told at the end, and gives status 1. Data that were
    asked for on standard output are work, see `write_data`. Characters that the terminal does not have are printed as
    escapes.

    Yields:
        A function that takes the exit status and returns it when all output has been written, and status 1 otherwise.
    """
    _fill_closed_descriptors()
    out, err = _Output(sys.stdout), _Output(sys.stderr)

    def checked(status: int) -> int:
        out.flush()
        err.flush()
        if (reason := out.untold()) is not None:
            print_error(program, f"the output cannot be written ({reason})")
        return status if out.untold() is err.untold() is None else status or FAILED

    with contextlib.redirect_stdout(cast(Any, out)), contextlib.redirect_stderr(cast(Any, err)):
        yield checked


class _Output:
    """A text stream that takes everything, and remembers the error that kept it from being written."""

    def __init__(self, stream: Any):
        self._is_closed = stream is None
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (lives as long as the process)
        self._error: OSError | None = None
        self._is_told = False

    def untold(self) -> str | None:
        """Return why not everything was written, if the user has to know and was not told yet."""
        if self._error is None or self._is_told or isinstance(self._error, BrokenPipeError):
            return None
        return self._error.strerror

    def write_data(self, data: bytes) -> None:
        """Write bytes; see the function of that name."""
        self.flush()
        with self._caught():
            self._stream.buffer.write(data)
            self._stream.buffer.flush()
        if self._is_closed or self._error is not None:
            self._is_told = True
            reason = self._error.strerror if self._error else "it is closed"
            raise UserError(f"standard output cannot be written ({reason})")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        with self._caught():
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._caught():
            self._stream.flush()

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = self._error or error
            # Send what is still printed nowhere, also what is left in the buffer.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _fill_closed_descriptors() -> None:
    """Open the null device for standard streams that are closed, so that no file gets their numbers."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def _set_up_jax(device: Literal["none", "shared", "whole"]) -> None:
    """Set the variables that JAX reads when it is imported, where the user has not set them."""
    if device == "none":
        return
    # Imports make many objects and hardly any garbage: looking for it as often as usual takes a tenth of the start.
    gc.set_threshold(100_000, *gc.get_threshold()[1:])
    from cod_jax.compilation_cache import settings

    for name, value in settings().items():
        os.environ.setdefault(name.upper(), str(value))
    if device == "shared":
        # A codec is one program among others on its device: it takes memory as needed, not most of it at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@contextlib.contextmanager
def _warnings_as_lines(program: str) -> Iterator[None]:
    """Print warnings for users as lines, also those in the log, and leave those for programmers out."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if not issubclass(category, UserWarning):
            return
        text = str(message)
        if of_cache := _CACHE_WARNING.fullmatch(text):  # about each program
            place = os.environ.get("JAX_COMPILATION_CACHE_DIR", "the cache")
            text = _CACHE_TEXTS[of_cache[1]].format(place=place, reason=of_cache[2])
            if text in told:
                return
            told.add(text)
        _write_line(files.printable(f"{program}: warning: {text}"), sys.stderr)

    usual = logging.lastResort
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        # Takes what no handler is set for; the trainer sets one for all that this package logs.
        logging.lastResort = _LogAsLines(program, usual)
        try:
            yield
        finally:
            logging.lastResort = usual


class _LogAsLines(logging.Handler):
    """Handler that prints each warning of this package once, and leaves those of others to another handler."""

    def __init__(self, program: str, others: logging.Handler | None):
        super().__init__(logging.WARNING)
        self._program = program
        self._others = others
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if record.name.partition(".")[0] != "cod_jax":
            if self._others is not None:
                self._others.handle(record)
            return
        text = record.getMessage()
        if text not in self._printed:  # a folder is searched again by what uses it
            self._printed.add(text)
            _write_line(files.printable(f"{self._program}: warning: {text}"), sys.stderr)


def _write_line(text: str, stream: Any) -> None:
    """Print a line, above the progress bar if there is one."""
    tqdm = sys.modules.get("tqdm")  # whoever shows a bar has imported it
    if tqdm is None:
        print(text, file=stream)
    else:
        tqdm.tqdm.write(text, file=stream)
