import os
import signal
import subprocess
import sys
import threading

import pytest

from cod_jax.training.stopping import interrupt_as_termination, stop_event


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_sets_the_event_and_the_second_changes_nothing(number, capfd):
    before = signal.getsignal(number)
    with stop_event() as event:
        assert not event.is_set()
        os.kill(os.getpid(), number)
        assert event.wait(5)
        assert capfd.readouterr().err == ""
        os.kill(os.getpid(), signal.SIGTERM)
        assert "the step is being saved; a third signal ends the process" in capfd.readouterr().err
    assert signal.getsignal(number) == before


# The save takes a second, in a thread as Orbax's does, and gets two more signals of those that are given.
SAVING = """
import os, signal, sys, threading, time
from pathlib import Path
from cod_jax import files
from cod_jax.training.stopping import stop_event

def save():
    time.sleep(1)
    Path(sys.argv[2]).touch()

with files.clean_exit_on_sigterm(), stop_event() as event:
    os.kill(os.getpid(), signal.SIGTERM)
    saving = threading.Thread(target=save)
    saving.start()
    for _ in range(int(sys.argv[1])):
        os.kill(os.getpid(), signal.SIGTERM)
    saving.join()
"""


@pytest.mark.parametrize(("later", "status", "is_saved"), [(1, 0, True), (2, 143, False)])
def test_a_save_outlasts_a_second_signal_and_not_a_third(tmp_path, later: int, status: int, is_saved: bool):
    saved = tmp_path / "saved"
    command = [sys.executable, "-c", SAVING, str(later), str(saved)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, saved.exists()) == (status, is_saved)
    assert done.stderr.count("a third signal ends the process") == 1


def test_outside_the_main_thread_nothing_is_caught():
    caught = []

    def run():
        with stop_event() as event:
            caught.append(event.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == [False]


def test_an_interruption_can_act_as_termination():
    before = signal.getsignal(signal.SIGINT)
    with stop_event() as event, interrupt_as_termination():
        os.kill(os.getpid(), signal.SIGINT)
        assert event.wait(5)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_before_there_is_anything_to_save_a_signal_ends_the_process_with_a_line(number, code):
    program = f"""
import os, time
from cod_jax.training.stopping import exit_when_told
with exit_when_told("told to stop"):
    os.kill(os.getpid(), {int(number)})
    time.sleep(10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (code, "told to stop\n")
