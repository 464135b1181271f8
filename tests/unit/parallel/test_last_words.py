import signal
import subprocess
import sys

import pytest

BEGIN = """
import ctypes, os, signal, sys, threading, time
from cod_jax.parallel import last_words
last_words.prepare("killed or aborted")
"""
# A thread that Python does not know aborts, while the main thread keeps the interpreter.
ABORT_ELSEWHERE = """
libc = ctypes.CDLL(None)
thread = ctypes.c_ulong()
libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.abort, ctypes.c_void_p), None)
while True: pass
"""


def run(program: str) -> "subprocess.CompletedProcess[str]":
    # What waits for the end of the process holds its standard error open, so nothing is read too early.
    command = [sys.executable, "-c", BEGIN + program]
    options = {"capture_output": True, "text": True, "timeout": 60, "start_new_session": True}
    return subprocess.run(command, check=False, **options)


@pytest.mark.parametrize(
    ("program", "number"),
    [
        (ABORT_ELSEWHERE, signal.SIGABRT),
        ("os.abort()", signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGABRT)", signal.SIGABRT),
        ("os.write(2, b'last of all: '); os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL),
    ],
)
def test_a_process_that_cannot_speak_has_the_line_and_ends_as_without_it(program: str, number: int):
    done = run(program)
    assert done.returncode == -number
    assert done.stderr.endswith("killed or aborted\n")
    assert done.stderr.count("killed or aborted") == 1


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("last_words.leave(4)", 4),
        ("last_words.dismiss(); os.abort()", -signal.SIGABRT),
        ("threading.Thread(target=last_words.leave, args=(5,)).start(); time.sleep(60)", 5),
        ("raise ValueError('its own words')", 1),
    ],
)
def test_a_process_that_says_itself_why_it_ends_has_no_other_line(program: str, status: int):
    done = run(program)
    assert done.returncode == status
    assert "killed or aborted" not in done.stderr


def test_the_line_prepared_last_counts():
    assert run("last_words.prepare('another'); os.abort()").stderr.splitlines()[-1] == "another"


def test_signals_for_all_processes_of_a_group_are_not_for_what_waits():
    done = run(
        "signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(1); os.killpg(0, signal.SIGTERM); os.abort()"
    )
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.endswith("killed or aborted\n")


def test_without_a_further_process_only_the_line_is_missing():
    program = """
def refuse(*_, **__): raise OSError("no more processes")
last_words.subprocess.Popen = refuse
last_words.prepare("never said")
print("on it goes", flush=True)
os.abort()
"""
    done = run(program)
    assert done.stdout == "on it goes\n"
    assert done.returncode == -signal.SIGABRT
    assert "said" not in done.stderr
