"""Watchdog for hangs: a process that stands still for too long shows where it stands, and ends."""

import contextlib
import faulthandler
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator

from cod_jax.parallel import last_words

_logger = logging.getLogger(__name__)

# Status of work that failed after it had begun.
_FAILED = 1


@contextlib.contextmanager
def watchdog(limit_seconds: float) -> Iterator[Callable[[str], None]]:
    """End the process if the block does not report for too long after its first report.

    A line in the log says what the process was doing, and the stacks of all threads go to standard error. The process
    then ends with status 1, because a hang in a library cannot be interrupted in another way.

    Args:
        limit_seconds: Longest time between two reports; 0 waits forever.

    Yields:
        A function that reports: it takes a few words on what the process does from now on. Nothing is watched before it
        is called.
    """
    doing, since = "", math.inf

    def report(text: str) -> None:
        nonlocal doing, since
        doing, since = text, time.monotonic()

    def watch() -> None:
        while not closed.wait(limit_seconds / 10):
            if since == math.inf:
                continue
            # Python cannot run this thread while a library holds the interpreter. Then the timer, which is not a Python
            # thread, dumps the stacks and ends the process.
            faulthandler.dump_traceback_later(limit_seconds, exit=True, file=sys.__stderr__ or 2)
            if time.monotonic() - since > limit_seconds:
                _logger.error(
                    "error: nothing has moved for %.0f s while %s; the stacks of all threads are on standard error; "
                    "the same command resumes from the newest checkpoint, if one is saved; limits.step_seconds is the "
                    "longest wait",
                    limit_seconds,
                    doing,
                )
                faulthandler.dump_traceback(sys.__stderr__ or 2)
                last_words.leave(_FAILED)

    if limit_seconds <= 0:
        yield report
        return
    closed = threading.Event()
    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        closed.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()
