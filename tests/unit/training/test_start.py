"""The start of a run: its locks, its log file, and what it keeps in memory."""

import contextlib
import fcntl
import gc
import logging
import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.parallel import last_words
from cod_jax.training import start
from cod_jax.training.start import _alone, _log_to, run_stages
from tests.training_fixtures import small_settings


class Network(dict):
    """Parameters whose life can be followed."""


@pytest.mark.parametrize(
    ("first", "second"), [("run", "run/stage1"), ("run/stage1", "run"), ("run/stage1", "run/stage1")]
)
def test_a_run_and_one_of_its_stages_exclude_each_other(tmp_path, monkeypatch, first: str, second: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "stage1").mkdir(parents=True)
    refused = pytest.raises(UserError, match="is in use by another run; wait for it or choose")
    with _alone(Path(first)), refused, _alone(Path(second)):
        pass
    with _alone(Path(second)):
        pass


def test_a_stage_that_is_made_later_is_locked_with_its_run(tmp_path, monkeypatch):
    with _alone(tmp_path):
        stage = tmp_path / "stage2"
        stage.mkdir()
        monkeypatch.chdir(stage)
        with pytest.raises(UserError, match=f"{tmp_path} is in use"), _alone(Path(".")):
            pass


def test_different_stages_and_runs_side_by_side_are_free(tmp_path):
    for name in ("stage1", "stage2", "other", "notes/stage1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".lock").touch()
    with _alone(tmp_path / "stage1"), _alone(tmp_path / "stage2"):
        pass
    with _alone(tmp_path), _alone(tmp_path / "other"), _alone(tmp_path / "notes" / "stage1"):
        pass


def test_a_folder_without_locks_can_be_used(tmp_path, monkeypatch):
    def none(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", none)
    with _alone(tmp_path):
        pass


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (UserError("expected this,\n got that"), ["error: expected this, got that"]),
        (OSError(28, "No space left on device", "file"), ["error: file: No space left on device"]),
        (KeyboardInterrupt(), ["error: KeyboardInterrupt"]),
        (TypeError("a bug"), ["error: a bug", "Traceback (most recent call last):", "TypeError: a bug"]),
    ],
)
def test_what_ends_a_run_is_in_its_log(tmp_path, capsys, error: BaseException, lines: list[str]):
    file = tmp_path / "train.log"

    @_log_to(file)
    def run():
        logging.getLogger("cod_jax").info("begun")
        raise error

    with pytest.raises(type(error)):
        run()
    written = file.read_text().splitlines()
    assert written[0].endswith(" begun")
    assert written[1].endswith(f" {lines[0]}")
    assert [line for line in written[2:] if not line.startswith(" ")] == lines[1:]
    assert "error" not in capsys.readouterr().out  # the command prints it


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_prints_no_tracebacks(capsys):
    with _log_to(Path("/dev/full")):
        logging.getLogger("cod_jax").info("begun")
    captured = capsys.readouterr()
    assert "begun" in captured.out
    assert captured.err == ""


def test_other_processes_log_under_their_number_and_show_warnings_only(tmp_path, capsys):
    with _log_to(tmp_path / "train.3.log", everything=False):
        logging.getLogger("cod_jax").info("begun")
        logging.getLogger("cod_jax").warning("odd")
    assert [line.split()[1] for line in (tmp_path / "train.3.log").read_text().splitlines()] == ["begun", "odd"]
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["odd"]


def test_a_process_that_leaves_at_once_copies_its_log_to_the_address(tmp_path, monkeypatch):
    copied = []

    class Mirror(contextlib.nullcontext):
        def __init__(self, folder, *_):
            super().__init__(self)
            self.copy = lambda: copied.append((folder / "train.log").read_text())

    def leave(status: int) -> None:
        raise SystemExit(status)

    def hang(*_):
        logging.getLogger("cod_jax").error("error: nothing has moved")
        last_words.leave(1)

    monkeypatch.setattr(start, "Mirror", Mirror)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(start, "_run_unfinished", hang)
    with pytest.raises(SystemExit):
        run_stages({"": small_settings()}, tmp_path / "run", lambda *_: {}, address="gs://bucket/run")
    (text,) = copied
    assert text.endswith(" error: nothing has moved\n")


def test_frozen_networks_are_read_by_each_stage_and_kept_by_none(tmp_path, monkeypatch):
    alive = []

    def train(config, workdir, *, load_frozen, **_):
        given = load_frozen()
        network = weakref.ref(given["dinov2"])
        del given
        gc.collect()
        alive.append(network() is not None)
        return True

    monkeypatch.setattr(start, "train", train)
    monkeypatch.setattr(start, "check", lambda *_: None)
    stages = {"1": small_settings(), "2": small_settings()}
    run_stages(stages, tmp_path / "run", lambda names, weights: {"dinov2": Network(kernel=np.ones(3))})
    assert alive == [False, False]
