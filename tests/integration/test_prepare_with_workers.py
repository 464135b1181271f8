"""Preparation of a dataset by several processes, which are killed in the middle."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax.input.config import DataConfig
from cod_jax.input.pipeline import build_train_batches

pytest.importorskip("apache_beam", reason="apache-beam is not installed; it comes with the extra beam")

NUM, PER_SHARD = 320, 16
DEADLINE_SECONDS = 300


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Parts of photographs, larger than they become, one of them too small and one cut off."""
    folder = tmp_path_factory.mktemp("photos")
    wholes = [Image.fromarray(photographs.astronaut()), Image.fromarray(photographs.coffee()).resize((900, 600))]
    for index in range(NUM):
        whole = wholes[index % 2]
        left, top = 7 * index % (whole.width - 400), 3 * index % (whole.height - 300)
        whole.crop((left, top, left + 400, top + 300)).save(folder / f"{index:03d}.jpg", quality=95)
    wholes[0].resize((300, 200)).save(folder / "small.jpg")
    (folder / "broken.jpg").write_bytes((folder / "000.jpg").read_bytes()[:5000])
    return folder


def start(photos, output, workers):
    command = [sys.executable, "-m", "cod_jax", "prepare", "--dataset", "folder", "--name", "photos", "--size", "256"]
    options = ["--images-per-shard", str(PER_SHARD), "--workers", str(workers)]
    return subprocess.Popen(
        [*command, "--source", str(photos), "--output", str(output), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )


def children(process):
    """Return the processes that any thread of a process has started."""
    return [
        int(pid) for path in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in path.read_text().split()
    ]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so):
    end = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def checksums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_workers_that_are_killed_leave_what_they_did_and_the_result_is_that_of_one_process(photos, tmp_path):
    work = tmp_path / "killed" / "photos" / "256" / ".units-1.0.0"
    process = start(photos, tmp_path / "killed", workers=2)
    wait_until(lambda: process.poll() is not None or len(list(work.glob("*.json"))) >= 3)
    workers = children(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(workers) >= 2
    wait_until(lambda: not any(map(is_running, workers)))
    done = {path: path.stat().st_mtime_ns for path in work.glob("*.json")}
    assert 3 <= len(done) < 20
    assert not (work.parent / "1.0.0").exists()

    process = start(photos, tmp_path / "killed", workers=2)
    kept: dict[Path, int] = {}
    wait_until(lambda: process.poll() is not None or len(list(work.glob("*.json"))) > len(done))
    kept = {path: path.stat().st_mtime_ns for path in done if path.exists()}
    out, err = process.communicate()
    assert process.returncode == 1, err  # one picture cannot be read
    assert f"wrote {NUM} images" in out
    assert "skipped 1 that are too small and 1 that cannot be read" in out
    assert kept == {path: done[path] for path in kept}

    process = start(photos, tmp_path / "one", workers=1)
    process.communicate()
    folder = tmp_path / "killed" / "photos" / "256" / "1.0.0"
    assert checksums(folder) == checksums(tmp_path / "one" / "photos" / "256" / "1.0.0")
    assert os.listdir(folder.parent) == ["1.0.0"]
    about = json.loads((folder / "manifest.json").read_text())
    assert (about["num_images"], about["num_too_small"], list(about["skipped"])) == (NUM, 1, ["broken.jpg"])

    config = DataConfig(source=f"tfds:{folder}", crop="center", validation_modulus=0)
    batches = build_train_batches(config, batch_size=32, seed=0)
    for _ in range(NUM // 32):
        assert next(batches)["image"].shape == (32, 256, 256, 3)
    assert not batches.skipped
    batches.close()
