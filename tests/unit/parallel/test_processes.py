import os
import subprocess
import sys

import jax
import pytest

from cod_jax.errors import WorkError
from cod_jax.parallel import last_words
from cod_jax.parallel.processes import join_processes, leaving_with_lost_processes, lost_contact
from cod_jax.storage import StorageError


@pytest.fixture(autouse=True)
def said(monkeypatch):
    """The lines that are prepared for the end of the process; nothing waits for that of the tests."""
    lines = []
    monkeypatch.setattr(last_words, "prepare", lines.append)
    return lines


@pytest.fixture
def bind_address(monkeypatch):
    """Join with an address of the first process, and return where it listens."""
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)

    def join(address: str | None) -> str | None:
        given = {}
        monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **options: given.update(options))
        join_processes(True, address, None if address is None else 2, None if address is None else 0)
        return given["coordinator_bind_address"]

    return join


@pytest.mark.parametrize("address", ["localhost:1234", "127.0.0.1:1234"])
def test_the_coordinator_listens_at_the_address_that_it_is_given(bind_address, address: str):
    assert bind_address(address) == address


@pytest.mark.parametrize("address", [None, "192.0.2.1:1234", "no-such-host.invalid:1234"])
def test_an_address_that_is_not_of_this_machine_decides_nothing(bind_address, address: str | None):
    assert bind_address(address) is None


def test_a_name_that_only_this_machine_takes_for_itself_decides_nothing(bind_address, monkeypatch):
    found = [(2, 1, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert bind_address("node0:1234") is None


def test_a_variable_decides_where_the_coordinator_listens(bind_address, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "[::]:1234")
    assert bind_address("localhost:1234") is None


def test_the_limits_of_a_run_are_those_of_jax(monkeypatch):
    given = {}
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **options: given.update(options))
    join_processes(True, None, None, None, join_seconds=40, heartbeat_seconds=20)
    assert given["heartbeat_timeout_seconds"] == given["shutdown_timeout_seconds"] == 20
    assert given["initialization_timeout"] > 40


def test_a_process_of_several_that_is_killed_has_a_line_prepared(monkeypatch, said):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    join_processes(False, None, None, None)
    assert not said
    join_processes(True, None, None, None)
    (line,) = said
    assert line.startswith("cod train: error: this process was killed or aborted, or hung; ")
    assert line.endswith("; the same command resumes from the newest checkpoint, if one is saved")


def test_processes_that_do_not_come_are_a_line_in_time():
    program = """
import time, jax
from cod_jax.parallel.processes import join_processes
jax.distributed.initialize = lambda *_, **__: time.sleep(60)
join_processes(True, None, None, None, join_seconds=0.1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("cod train: error: the other processes have not all joined within 0.1 s; start all of them")


LOST = "UNKNOWN: Gloo AllGather failed: [external/gloo/pair.cc:547] Connection closed by peer [127.0.0.1]:919"


def test_the_line_names_the_loss_and_not_what_failed_because_of_it(monkeypatch, caplog):
    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(os, "_exit", leave)
    failed = RuntimeError(f"the save failed ({LOST}); start again")
    failed.__cause__ = ValueError(LOST)
    with pytest.raises(SystemExit), leaving_with_lost_processes():
        raise failed
    assert "start again" not in caplog.text
    assert LOST in caplog.text


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


CUT = "Connection reset by peer"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        # Storage that closes connections is not another process.
        (StorageError(f"s3://bucket/photos cannot be used ({CUT})"), None),
        (caused_by(StorageError(f"gs://bucket cannot be used ({CUT})"), RuntimeError(f"request: {CUT}")), None),
        (caused_by(WorkError(f"the checkpoint cannot be saved ({CUT})"), ValueError(f"CURL error: {CUT}")), None),
        (ConnectionResetError(104, CUT), None),
        # What breaks a save may be the loss of a process.
        (caused_by(WorkError("the checkpoint cannot be saved"), ValueError(LOST)), LOST),
        (caused_by(WorkError("not saved"), jax.errors.JaxRuntimeError(f"INTERNAL:\n{CUT}")), CUT),
        (RuntimeError(f"UNAVAILABLE: {CUT}"), f"UNAVAILABLE: {CUT}"),
    ],
)
def test_an_error_for_the_user_is_a_lost_process_only_if_jax_has_said_so(monkeypatch, error, line):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert lost_contact(error) == line
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    assert lost_contact(error) is None


@pytest.mark.parametrize(
    ("error", "count", "leaves"),
    [
        (ValueError(LOST), 2, True),
        (RuntimeError("INTERNAL: NCCL operation ncclAllReduce failed: remote process exited"), 2, True),
        (ValueError(LOST), 1, False),
        (ValueError("a bug"), 2, False),
    ],
)
def test_a_lost_process_ends_the_others_at_once_with_a_line(monkeypatch, caplog, error, count, leaves):
    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit if leaves else type(error)), leaving_with_lost_processes():
        raise error
    if leaves:
        (record,) = caplog.records
        assert record.getMessage().startswith("error: process 0 of 2 lost contact with another one (")
        assert "the same command resumes from the newest checkpoint" in record.getMessage()
        assert str(error).splitlines()[-1] in record.getMessage()
    else:
        assert not caplog.records
