import signal
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("before", ["", "last_words._waiters[0].kill(); last_words._waiters[0].wait(); "])
def test_the_line_prepared_last_counts(before: str):
    program = f"{before}last_words.prepare('another'); os.abort()"
    assert run(program).stderr.splitlines()[-1] == "another"
    assert "another" not in run(program.replace("os.abort()", "last_words.leave(0)")).stderr


# They are sent once the process that waits ignores the last of them.
SIGNALS = """
pid = last_words._waiters[0].pid
def ignored():
    text = open(f"/proc/{pid}/status").read()
    return int(text.split("SigIgn:")[1].split()[0], 16)
while not ignored() >> (signal.SIGTERM - 1) & 1: time.sleep(0.01)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM): os.kill(pid, number)
os.abort()
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="sees in /proc which signals a process ignores")
def test_signals_to_all_processes_of_a_job_do_not_end_what_waits():
    assert run(SIGNALS).stderr.endswith("killed or aborted\n")


def test_what_waits_is_not_of_the_group_of_the_process():
    assert run("print(os.getpgid(last_words._waiters[0].pid) == os.getpgid(0))").stdout == "False\n"


def test_threads_that_leave_at_once_do_leave():
    program = "[threading.Thread(target=last_words.leave, args=(6,)).start() for _ in range(8)]; time.sleep(60)"
    done = run(program)
    assert done.returncode == 6
    assert "killed or aborted" not in done.stderr


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("print('copied', flush=True)", "copied\n"),
        ("1 / 0", ""),
        ("print('begun', flush=True); time.sleep(60)", "begun\n"),
    ],
)
def test_what_is_not_finished_is_done_before_leaving_unless_it_takes_too_long(action: str, said: str):
    program = f"""
last_words._LONGEST_FINISH = 1.0
def act():
    {action}
with last_words.finishing(act):
    last_words.leave(7)
"""
    done = run(program)
    assert (done.returncode, done.stdout) == (7, said)


def test_what_is_finished_is_not_done_again():
    program = "\nwith last_words.finishing(lambda: print('copied', flush=True)): pass\nlast_words.leave(7)"
    assert run(program).stdout == ""


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
