import os
import signal
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
