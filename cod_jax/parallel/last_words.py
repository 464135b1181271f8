"""A last line for a process that cannot say one itself, because it is killed or aborted.

JAX aborts a process whose coordinator is gone, after an account of its own, and no code of ours runs any more then. So
another small process waits for the end of this one. It is told if this one has said itself why it ends.
"""

import atexit
import contextlib
import os
import subprocess
import sys
from typing import NoReturn

# Its standard input ends with the process that it waits for. Signals for a whole group of processes are not for it: the
# other one may still take a while to save.
_WAITER = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if not os.read(0, 1):
    os.write(2, sys.argv[1].encode())
"""
_LONGEST_WAIT = 5.0

# At most one.
_waiters: "list[subprocess.Popen[bytes]]" = []


def prepare(line: str) -> None:
    """Have a line printed on standard error if this process is killed or aborted from now on."""
    dismiss()
    command = [sys.executable, "-I", "-S", "-c", _WAITER, f"{line}\n"]
    # Where no further process can be started, only the line is missing.
    with contextlib.suppress(OSError):
        _waiters.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        atexit.register(dismiss)


def dismiss() -> None:
    """Take back what was prepared: this process says itself why it ends."""
    while _waiters:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            _waiters.pop().communicate(b".", timeout=_LONGEST_WAIT)


def leave(status: int) -> NoReturn:
    """End this process at once, which has said why."""
    dismiss()
    os._exit(status)
