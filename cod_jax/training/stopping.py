"""Signals that stop a run: SIGTERM or Ctrl-C end it after the current step, with a checkpoint."""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator

from cod_jax.parallel import last_words


@contextlib.contextmanager
def exit_when_told(message: str) -> Iterator[None]:
    """End the process at once on SIGTERM or Ctrl-C, with a line on standard error and the shell's usual exit code.

    Use it while there is nothing to save. An exception instead could get lost in a callback, or crash in a compilation
    that continues in other threads while the interpreter ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def leave(number: int, _frame: object) -> None:
        os.write(2, f"{message}\n".encode())
        last_words.leave(128 + number)

    for number in previous:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is leave:
                signal.signal(number, handler)


@contextlib.contextmanager
def stop_event() -> Iterator[threading.Event]:
    """Give an event that is set when this process is told to stop; later signals are for `_insisting`.

    Only the main thread can catch signals; elsewhere the event is never set. Under `jax.distributed` all processes have
    to stop at the same step, so use `CheckpointStore.reached_preemption` there.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    count = itertools.count(1)

    def stop(number: int, _frame: object) -> None:
        event.set()
        _insisting(number, next(count))

    for number in previous:
        signal.signal(number, stop)
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupt_as_termination() -> Iterator[None]:
    """Turn the first Ctrl-C into SIGTERM, which jax.distributed catches; later ones are for `_insisting`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)
    count = itertools.count(1)

    def terminate(number: int, _frame: object) -> None:
        if (times := next(count)) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        _insisting(number, times)

    signal.signal(signal.SIGINT, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _insisting(number: int, times: int) -> None:
    """Answer the second signal with a line and end the process at the third one.

    Schedulers and launchers send the same signal more than once, and the save under way should not be lost to that.
    """
    if times == 2:
        os.write(2, b"told to stop already: the step is being saved; a third signal ends the process without that\n")
    elif times > 2:
        last_words.leave(128 + number)
