"""Rules for every command: help, exit statuses, signals, warnings, and output that cannot be written."""

import dataclasses
import importlib
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cod_jax.commands import frame
from cod_jax.commands.main import COMMANDS, load, main
from cod_jax.errors import UserError, WorkError
from tests.conftest import REPOSITORY
from tests.unit.commands.conftest import Cod

HEAVY = ["jax", "flax", "numpy", "PIL", "tqdm", "absl", "ml_collections", "grain", "orbax"]
SIGNALS = [(signal.SIGTERM, 143), *([(signal.SIGHUP, 129)] if sys.platform != "win32" else [])]
each_command = pytest.mark.parametrize("name", COMMANDS)
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices differ there")

Replace = Callable[[str, Callable[[Any], Any]], None]


@pytest.fixture
def replace(monkeypatch) -> Replace:
    """Put other work in the place of a command's own, without its options."""

    def replace(name: str, run: Callable[[Any], Any]) -> None:
        module = importlib.import_module(f"cod_jax.commands.{COMMANDS[name]}")
        command = dataclasses.replace(module.COMMAND, run=run, add_options=lambda parser: None)
        monkeypatch.setattr(module, "COMMAND", command)

    return replace


@pytest.fixture
def number(request) -> Iterator[int]:
    """A signal that is not ignored, as SIGHUP is where tests are run by nohup."""
    previous = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, previous)


def raising(error: BaseException) -> Callable[[Any], Any]:
    def run(args):
        raise error

    return run


@each_command
def test_help_has_examples_and_exit_status(cod: Cod, name: str):
    result = cod(name, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"usage: cod {name} ")
    assert "examples:\n" in result.out
    assert "exit status:\n  0    everything is done" in result.out


def test_the_overview_names_every_command(cod: Cod):
    result = cod("--help")
    assert (result.status, result.err) == (0, "")
    assert all(f"\n    {name}" in result.out for name in COMMANDS)


def test_help_is_fast_because_nothing_heavy_is_imported():
    script = (
        "import sys; from cod_jax.commands.main import COMMANDS, main\n"
        "assert not any(main([*name, '--help']) for name in [[], *([name] for name in COMMANDS)])\n"
        f"sys.exit(' '.join(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr.strip() == ""


@each_command
def test_an_unknown_option_is_one_line_and_status_2(cod: Cod, name: str, replace: Replace):
    replace(name, lambda args: pytest.fail("it ran"))
    result = cod(name, "--fast")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"cod {name}: error: unrecognized arguments: --fast")
    assert result.err.endswith(f"; see cod {name} --help\n")
    assert result.err.count("\n") == 1


@each_command
@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("expected a picture,\ngot none"), 2, "expected a picture, got none"),
        (FileNotFoundError(2, "No such file or directory", "photos"), 2, "photos: No such file or directory"),
        (FileExistsError("out already exists"), 2, "out already exists"),
        (WorkError("none of 3 pictures can be used"), 1, "none of 3 pictures can be used"),
        (OSError(5, "Input/output error", "a\x1b.png"), 1, r"a\x1b.png: Input/output error"),
        (OSError(28, "No space left on device"), 1, ": make room, and run the command again"),
        (RuntimeError("write failed: No space left on device"), 1, ": make room, and run the command again"),
        (MemoryError(), 1, "or smaller pictures at a time, or end other programs that use this memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out\nof memory"), 1, "or end other programs that use this memory"),
        (ModuleNotFoundError("No module named 'grain'", name="grain.python"), 2, "pip install 'cod_jax[train]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_has_the_same_status_everywhere(
    cod: Cod, replace: Replace, name: str, error: BaseException, status: int, message: str
):
    replace(name, raising(error))
    result = cod(name)
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith(f"cod {name}: error: ")
    assert result.err.endswith(f"{message}\n")
    assert result.err.count("\n") == 1


@each_command
@pytest.mark.parametrize(("number", "status"), SIGNALS, indirect=["number"])
def test_a_signal_ends_a_command_after_it_has_cleaned_up(
    cod: Cod, replace: Replace, name: str, number: int, status: int
):
    cleaned = []

    def run(args):
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    replace(name, run)
    assert cod(name) == (status, "", f"cod {name}: error: terminated\n")
    assert cleaned == [True]


def test_a_platform_that_cannot_be_used_is_one_line(tmp_path):
    script = "import sys; from cod_jax.commands.main import main; sys.exit(main(['checkpoints', '--workdir', 'run']))"
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "error: JAX cannot compute here with JAX_PLATFORMS=no_such_platform (" in done.stderr
    assert done.stderr.endswith("; unset it, or set JAX_PLATFORMS=cpu\n")


@each_command
@pytest.mark.parametrize("error", [ValueError("a bug"), ModuleNotFoundError("No module named 'no'", name="no")])
def test_a_bug_is_not_caught(cod: Cod, replace: Replace, name: str, error: Exception):
    replace(name, raising(error))
    with pytest.raises(type(error), match=str(error)):
        cod(name)


@each_command
def test_debug_shows_the_traceback(cod: Cod, replace: Replace, name: str):
    replace(name, raising(UserError("expected a picture")))
    result = cod(name, "--debug")
    assert result.status == 2
    assert result.err.startswith("Traceback (most recent call last):\n")
    assert result.err.endswith(f"\ncod {name}: error: expected a picture\n")


def test_debug_shows_where_memory_was_too_small(cod: Cod, replace: Replace):
    def run(args):
        raise MemoryError("9 bytes")

    replace("info", run)
    assert "in run\n    raise MemoryError(" in cod("info", "--debug").err
    assert cod("info").err.startswith("cod info: error: out of memory (9 bytes); take fewer")


@each_command
def test_warnings_for_users_are_lines_and_others_are_left_out(cod: Cod, replace: Replace, name: str):
    def run(args):
        warnings.warn("photo.png: transparency\nwas composited", stacklevel=1)
        return frame.DONE

    replace(name, run)
    result = cod(name)
    assert result == (0, "", f"cod {name}: warning: photo.png: transparency\\nwas composited\n")


def test_warnings_about_compiled_programs_are_told_once(cod: Cod, replace: Replace, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "cache")

    def run(args):
        for name in ("jit_f", "jit_g"):
            entry = f"persistent compilation cache entry for '{name}'"
            warnings.warn(f"Error writing {entry}: OSError: [Errno 28] No space left on device", stacklevel=2)
            warnings.warn(f"Error reading {entry}: error: Error -5 while decompressing data", stacklevel=2)
        return 0

    replace("info", run)
    assert cod("info").err.splitlines() == [
        "cod info: warning: compiled programs cannot be kept in cache (No space left on device), so they are compiled "
        "each time",
        "cod info: warning: compiled programs in cache are damaged (Error -5 while decompressing data), so they are "
        "compiled again; remove that folder",
    ]


def test_warnings_in_the_log_are_lines_too_each_printed_once(cod: Cod, replace: Replace, monkeypatch):
    def run(args):
        for _ in range(2):
            logging.getLogger("cod_jax.image_search").warning("%s: left out %d", "photos", 2)
        return frame.DONE

    replace("evaluate", run)
    monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
    assert cod("evaluate") == (0, "", "cod evaluate: warning: photos: left out 2\n")


@posix_only
@each_command
@pytest.mark.parametrize(("full", "status"), [(False, 0), (True, 1)])
def test_output_that_cannot_be_written_does_not_stop_the_work(
    name: str, full: bool, status: int, replace: Replace, monkeypatch, capsys
):
    finished = []

    def run(args):
        for number in range(5000):
            frame.say(f"line {number}")
        finished.append(True)
        return frame.DONE

    replace(name, run)
    reader, writer = os.pipe()
    os.close(reader)
    if full:
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        found = main([name])
        monkeypatch.undo()
    assert (found, finished) == (status, [True])
    expected = f"cod {name}: error: the output cannot be written (No space left on device)\n" if full else ""
    assert capsys.readouterr().err == expected


@posix_only
@pytest.mark.parametrize(
    ("line", "status", "errors"),
    [
        ("models | true", 0, ""),
        ("models > /dev/full", 1, "cod models: error: the output cannot be written (No space left on device)\n"),
        ("--help > /dev/full", 1, "cod: error: the output cannot be written (No space left on device)\n"),
        ("models >&-", 0, ""),
        ("models --fast 2>&-", 2, ""),
        ("models >&- 2>&- <&-", 0, ""),
    ],
)
def test_streams_of_a_whole_process(tmp_path, line: str, status: int, errors: str):
    command = f"set -o pipefail; '{sys.executable}' -m cod_jax {line}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["bash", "-c", command], check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (status, errors)


@posix_only
def test_a_file_never_gets_the_number_of_a_closed_stream():
    script = (
        "import sys; from cod_jax.commands import frame\n"
        "with frame.standard_streams('cod'):\n"
        "    sys.exit(open('/dev/null').fileno() <= 2)"
    )
    command = f"exec '{sys.executable}' -c \"{script}\" <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], check=False, cwd=REPOSITORY).returncode == 0


def test_characters_that_the_terminal_does_not_have_are_escaped(monkeypatch, replace: Replace, tmp_path):
    replace("models", lambda args: frame.say("café \x1b[2J ✓") or frame.DONE)
    with (tmp_path / "out").open("w", encoding="latin-1") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["models"]) == 0
        monkeypatch.undo()
    assert (tmp_path / "out").read_text(encoding="latin-1") == "café \\x1b[2J \\u2713\n"


@pytest.mark.parametrize(
    ("device", "cache", "preallocate"), [("none", False, None), ("whole", True, None), ("shared", True, "false")]
)
def test_jax_is_told_where_to_keep_programs_and_how_much_memory_to_take(
    monkeypatch, replace: Replace, device, cache: bool, preallocate: str | None
):
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "XLA_PYTHON_CLIENT_PREALLOCATE")
    for name in names:
        monkeypatch.setenv(name, "")  # is put back after the test
        monkeypatch.delenv(name)
    found: list[str | None] = []
    replace("models", lambda args: found.extend(os.environ.get(name) for name in names) or frame.DONE)
    module = importlib.import_module("cod_jax.commands.models")
    monkeypatch.setattr(module, "COMMAND", dataclasses.replace(module.COMMAND, device=device))
    assert main(["models"]) == 0
    assert [value is not None for value in found[:2]] == [cache, cache]
    assert found[2] == preallocate


def test_commands_that_use_a_model_take_device_memory_as_needed():
    devices = {name: load(name).device for name in COMMANDS}
    using_a_model = ("compress", "decompress", "info", "evaluate", "fit-prior", "export", "compile", "import")
    assert {devices[name] for name in using_a_model} == {"shared"}
    assert devices["train"] == "whole"
    # These start other processes, which choose for themselves.
    assert {devices[name] for name in ("sweep", "launch", "benchmark")} == {"none"}


def test_the_names_of_extras_are_those_of_the_project():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(frame.EXTRAS.values()) <= set(project["optional-dependencies"])


def test_the_shell_is_told_what_could_come_next(tmp_path):
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": "cod comp",
        "COMP_POINT": "8",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "words"),
        "_ARGCOMPLETE_IFS": "\n",
    }
    subprocess.run([sys.executable, "-m", "cod_jax"], check=True, cwd=REPOSITORY, env=environment)
    assert {word.strip() for word in (tmp_path / "words").read_text().splitlines()} == {"compress", "compile"}
