import os
import signal
import subprocess
import sys
import threading

import pytest

from cod_jax.training.stopping import interrupt_as_termination, stop_event


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_sets_the_event_and_the_second_acts_as_usual(number):
    before = signal.getsignal(number)
    with stop_event() as event:
        assert not event.is_set()
        os.kill(os.getpid(), number)
        assert event.wait(5)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


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
