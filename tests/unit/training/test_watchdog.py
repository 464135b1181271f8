import subprocess
import sys
import time

import pytest

from cod_jax.training.watchdog import watchdog

PROGRAM = """
import ctypes, logging, time
from cod_jax.training.watchdog import watchdog
logging.basicConfig(format="%(message)s")
def here_it_hangs():
    {hang}
with watchdog(0.3) as report:
    report("waiting for data")
    here_it_hangs()
"""


@pytest.mark.parametrize(
    ("hang", "line"),
    [
        ("time.sleep(60)", "nothing has moved for 0 s while waiting for data"),
        # A library that holds the interpreter: no Python thread can run.
        ("time.sleep(0.1); ctypes.PyDLL(None).sleep(60)", "Timeout (0:00:00.300000)!"),
    ],
    ids=["waits", "holds the interpreter"],
)
def test_a_hang_shows_the_stacks_and_ends_the_process(hang: str, line: str):
    begin = time.monotonic()
    command = [sys.executable, "-c", PROGRAM.format(hang=hang)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert line in done.stderr
    assert "in here_it_hangs" in done.stderr
    assert time.monotonic() - begin < 30


def test_nothing_is_watched_before_the_first_report():
    program = PROGRAM.format(hang="print('done', flush=True)").replace("report(", "time.sleep(2); report(")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_what_moves_or_has_no_limit_goes_on():
    with watchdog(0.2) as report:
        for step in range(6):
            time.sleep(0.1)
            report(f"step {step}")
    with watchdog(0.0) as report:
        report("step 1")
