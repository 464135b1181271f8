"""Two processes that train together against one that trains alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training_fixtures import REPOSITORY, one_device, run_trainer, small_arguments, write_photographs

STEPS = {"total_steps": 4, "checkpoint__every_steps": 2, "validation__every_steps": 4}
TAGS = ("loss", "gradient_norm", "codebook/perplexity", "validation/loss", "validation/psnr_sampled")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs")


def scalars(workdir: Path) -> dict[str, dict[int, float]]:
    accumulator = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in TAGS}


def two_processes(arguments: list[str]) -> list[str]:
    launcher = [sys.executable, "-m", "launch.local", "--processes", "2", "--devices_per_process", "1", "--"]
    return [*launcher, *arguments]


def test_two_processes_train_like_one_and_one_goes_on_from_their_checkpoint(photographs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    devices = {"XLA_FLAGS": f"{one_device()['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    alone = run_trainer(small_arguments(one, photographs, **STEPS), env=one_device() | devices)
    assert alone.returncode == 0, alone.stderr
    together = subprocess.run(
        two_processes(small_arguments(two, photographs, **STEPS)),
        cwd=REPOSITORY,
        env=one_device(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert together.returncode == 0, together.stdout + together.stderr
    assert "processes: 2, mesh: data 2 x fsdp 1 x tensor 1" in together.stdout
    expected, found = scalars(one), scalars(two)
    assert sorted(found["loss"]) == [1, 2, 3, 4]
    for tag, values in expected.items():
        # The first steps only: small differences grow as training goes on.
        assert found[tag].keys() == values.keys()
        for step in values:
            assert found[tag][step] == pytest.approx(values[step], rel=1e-5 if step == 1 else 1e-3), (tag, step)
    resumed = run_trainer(small_arguments(two, photographs, **{**STEPS, "total_steps": 5}), env=one_device() | devices)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step 4 of 5" in resumed.stdout


def test_sigterm_to_one_of_two_processes_stops_both_at_the_same_step(photographs, tmp_path):
    arguments = small_arguments(tmp_path / "run", photographs, **{**STEPS, "total_steps": 100_000})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(two_processes(arguments), cwd=REPOSITORY, env=one_device(), **pipes) as launcher:
        lines = []
        for line in launcher.stdout or ():
            lines.append(line)
            if " step 2/" in line:
                os.kill(children_of(launcher.pid)[1], signal.SIGTERM)
        text = "".join(lines)
        assert launcher.wait(timeout=60) == 0, text
    assert "told to stop: saving step" in text


def children_of(pid: int) -> list[int]:
    """The processes that a process started, in the order of their start."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
