"""A last line for a process that cannot say one itself, because it is killed or aborted.

JAX aborts a process whose coordinator is gone, after printing a message of its own, and no code of ours runs any more
then. So another small process waits for the end of this one, which tells it when it ends by itself.
"""

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

# Its standard input ends with the process that it waits for. Signals that are sent to all processes of a job must not
# end it: a trainer takes a while to save.
_WAITER = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if not os.read(0, 1):
    os.write(2, sys.argv[1].encode())
"""
_LONGEST_WAIT = 5.0
# For what is still done when this process leaves, all together.
_LONGEST_FINISH = 10.0

# At most one.
_waiters: "list[subprocess.Popen[bytes]]" = []
_unfinished: list[Callable[[], None]] = []


def prepare(line: str) -> None:
    """Have a line printed on standard error if this process is killed or aborted from now on."""
    dismiss()
    command = [sys.executable, "-I", "-S", "-c", _WAITER, f"{line}\n"]
    # Where no further process can be started, only the line is missing.
    with contextlib.suppress(OSError):
        _waiters.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        atexit.register(dismiss)


def dismiss() -> None:
    """Cancel the line, because this process says why it ends, or ends as it should."""
    # Several threads may do so at once. The byte comes first, so that none of them ends the process before it is sent.
    with contextlib.suppress(OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        waiter = _waiters[0]
        try:
            if waiter.stdin is not None:
                os.write(waiter.stdin.fileno(), b".")
        finally:
            _waiters.clear()
        waiter.wait(timeout=_LONGEST_WAIT)


@contextlib.contextmanager
def finishing(action: Callable[[], None]) -> Iterator[None]:
    """Have something done by `leave` inside the block, such as copying the log; it is cut off after ten seconds."""
    _unfinished.append(action)
    try:
        yield
    finally:
        _unfinished.remove(action)


def leave(status: int) -> NoReturn:
    """End this process at once, after it has said why."""
    try:
        dismiss()
        if _unfinished:
            # In a thread, because an action may wait for a network, or for a lock of the thread that leaves.
            thread = threading.Thread(target=_finish, daemon=True)
            thread.start()
            thread.join(_LONGEST_FINISH)
    finally:
        os._exit(status)


def _finish() -> None:
    for action in _unfinished:
        action()
