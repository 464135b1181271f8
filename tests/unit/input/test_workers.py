"""Training batches that processes of their own read."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.input.pipeline import build_train_batches
from tests.input_fixtures import indices, plain_config, random_config, take, write_shards
from tests.training_fixtures import REPOSITORY

READS = """
import os, sys
from cod_jax.input.config import DataConfig
from cod_jax.input.pipeline import build_train_batches

if __name__ == "__main__":
    config = DataConfig(source=sys.argv[1], image_size=8, validation_modulus=0, num_threads=0, num_workers=2)
    batches = build_train_batches(config, batch_size=2, seed=0)
    print("starts", flush=True)
    next(batches)
    next(batches)  # of the second worker
    print("reads", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["folder", "shards", "mixture"])
def test_what_reads_can_be_sent_to_another_process(colours, tmp_path, kind):
    write_shards(tmp_path / "shards", colours)
    places = {"folder": colours, "shards": tmp_path / "shards", "mixture": f"mix:2={colours},1={tmp_path / 'shards'}"}
    batches = build_train_batches(plain_config(places[kind]), batch_size=4, seed=0)
    sent = cloudpickle.loads(cloudpickle.dumps(batches._dataset))
    np.testing.assert_array_equal(sent[0]["image"], next(batches)["image"])


@pytest.mark.slow
def test_processes_that_read_decide_nothing(photos):
    def start(**changes):
        return build_train_batches(random_config(photos, **changes), batch_size=4, seed=0)

    alone, shared = start(), start(num_workers=3, num_threads=1)
    expected = take(alone, 12)
    np.testing.assert_array_equal(take(shared, 7), expected[:7])
    state = shared.get_state()
    assert state["step"] == 7
    shared.set_step(2)
    np.testing.assert_array_equal(take(shared, 3), expected[2:5])
    shared.close()
    other = start(num_workers=1, num_threads=0)
    other.set_state(state)
    np.testing.assert_array_equal(take(other, 5), expected[7:])
    other.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_what_they_leave_out_is_known(partly_broken, colours):
    expected = indices(build_train_batches(plain_config(colours), batch_size=4, seed=2), 6)
    for old, new in ((3, 4), (7, 9), (8, 9), (11, 0)):
        expected[expected == old] = new
    batches = build_train_batches(plain_config(partly_broken, num_workers=2), batch_size=4, seed=2)
    np.testing.assert_array_equal(indices(batches, 6), expected)
    assert sorted(batches.skipped) == ["03.png", "07.png", "08.png", "11.png"]
    assert batches.skipped["08.png"] == "100x7 is smaller than 8x8"
    batches.close()


@pytest.mark.slow
def test_their_errors_are_those_of_one_process(colours, tmp_path):
    for path in colours.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    batches = build_train_batches(plain_config(tmp_path, num_workers=1), batch_size=4, seed=0)
    for path in tmp_path.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the 12 files can be used"):
        next(batches)
    batches.close()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc to find processes")
def test_they_end_with_the_process_that_they_read_for_and_not_before(colours, tmp_path):
    script = tmp_path / "reads.py"
    script.write_text(READS)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, str(script), str(colours)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"starts\n"
        workers: set[int] = set()
        while len(workers) < 2 and process.poll() is None:
            workers = {pid for pid in _session(process.pid) if "spawn_main" in _command(pid)}
            for pid in workers:
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)
        assert process.stdout.readline() == b"reads\n"
        assert workers <= _session(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while workers & _session(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not workers & _session(process.pid)


def _session(leader):
    """Return the processes of a session that have not ended."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            state, _, _, session = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if entry.isdigit() and int(session) == leader and state != "Z":
            found.add(int(entry))
    return found


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
