"""Runs that are killed again and again, also on other numbers of devices, against one that is left alone."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cod_jax.training.checkpoint import ITEMS, read_on_host
from cod_jax.training.run_folder import checkpoint_directory, latest_step
from tests.multidevice.test_processes import assert_alike
from tests.training_fixtures import REPOSITORY, one_device, small_arguments, write_photographs

NUM_KILLS = int(os.environ.get("COD_JAX_KILLS", "30"))
STEPS = 60
SETTINGS = {"total_steps": STEPS, "checkpoint__every_steps": 3, "validation__num_images": 0}
# What a run says when a phase begins; it is killed up to so many seconds later.
MOMENTS = {"data: ": 3.0, "preparing the step": 3.0, "the step is ready": 0.5, " step ": 2.0}


def environment(num_devices: int) -> dict[str, str]:
    alone = one_device()
    return {**alone, "XLA_FLAGS": f"{alone['XLA_FLAGS']} --xla_force_host_platform_device_count={num_devices}"}


def run(arguments: list[str], num_devices: int, output: Path, kill_at: tuple[str, float] | None) -> int:
    """Run the trainer, kill it at a moment if one is given, and return its status."""
    command = [sys.executable, "-m", "cod_jax.train", *arguments]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment(num_devices), stdout=file, stderr=subprocess.STDOUT
        )
    if kill_at is not None:
        moment, delay = kill_at
        while process.poll() is None and moment not in output.read_text(errors="replace"):
            time.sleep(0.05)
        time.sleep(delay)
        process.kill()
    return process.wait(timeout=600)


@pytest.mark.soak
@pytest.mark.parametrize("devices", [(1,), (1, 2, 4, 8)], ids=["one device", "devices that come and go"])
def test_a_run_that_is_killed_at_random_equals_one_that_is_left_alone(tmp_path, devices):
    photographs = write_photographs(tmp_path / "photographs")
    straight, killed, output = tmp_path / "straight", tmp_path / "killed", tmp_path / "output"
    settings = {**SETTINGS, "images_per_device": 2}
    assert run(small_arguments(straight, photographs, **settings), 1, output, None) == 0, output.read_text()
    arguments = small_arguments(killed, photographs, **settings)
    chance = random.Random(0)
    for _ in range(NUM_KILLS):
        before = latest_step(killed) if killed.is_dir() else None
        moment = chance.choice(list(MOMENTS))
        status = run(arguments, chance.choice(devices), output, (moment, chance.uniform(0, MOMENTS[moment])))
        assert status in (0, -9), output.read_text()
        # Nothing that was saved is lost.
        after = latest_step(killed) if killed.is_dir() else None
        assert (after or 0) >= (before or 0)
    assert run(arguments, devices[0], output, None) == 0, output.read_text()
    assert_alike(straight, killed, ("loss", "gradient_norm"))
    if devices == (1,):
        folders = [checkpoint_directory(folder) for folder in (straight, killed)]
        for item in ITEMS:
            jax.tree.map(np.testing.assert_array_equal, *(read_on_host(folder, STEPS, item) for folder in folders))
