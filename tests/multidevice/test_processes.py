"""Two processes that train together against one that trains alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training_fixtures import REPOSITORY, one_device, run_trainer, small_arguments, write_photographs

# Without a validation, which would have to be compiled three times; the slow test has one.
SETTINGS = {"total_steps": 4, "checkpoint__every_steps": 1000, "validation__num_images": 0}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs")


def two_devices() -> dict[str, str]:
    environment = one_device()
    return {**environment, "XLA_FLAGS": f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}


def two_processes(arguments: list[str]) -> list[str]:
    launcher = [sys.executable, "-m", "launch.local", "--processes", "2", "--devices_per_process", "1", "--"]
    return [*launcher, *arguments]


def scalars(workdir: Path, tag: str) -> dict[int, float]:
    accumulator = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {event.step: event.value for event in accumulator.Scalars(tag)}


def children_of(pid: int) -> list[int]:
    """The processes that a process started, in the order of their start."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def assert_alike(one: Path, two: Path, tags: tuple[str, ...]) -> None:
    for tag in tags:
        expected, found = scalars(one, tag), scalars(two, tag)
        assert found
        for step in expected:
            # Sums in another order; what little that changes grows as training goes on.
            assert found[step] == pytest.approx(expected[step], rel=1e-5 if step == 1 else 1e-3), (tag, step)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes of the launcher in /proc")
@pytest.mark.slow
def test_two_processes_train_like_one_and_stop_together(photographs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run_trainer(small_arguments(one, photographs, **SETTINGS), env=two_devices())
    assert alone.returncode == 0, alone.stderr

    command = two_processes(small_arguments(two, photographs, **{**SETTINGS, "total_steps": 1_000_000}))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=REPOSITORY, env=one_device(), **pipes) as launcher:
        lines = []
        for line in launcher.stdout or ():
            lines.append(line)
            if " step 4/" in line:
                # One process is told; both have to save the same step.
                os.kill(children_of(launcher.pid)[1], signal.SIGTERM)
        text = "".join(lines)
        assert launcher.wait(timeout=60) == 0, text
    assert "processes: 2, mesh: data 2 x fsdp 1 x tensor 1" in text
    assert_alike(one, two, ("loss", "gradient_norm", "codebook/perplexity"))
    steps = {int(path.name) for path in (two / "checkpoints").iterdir() if path.name.isdigit()}
    assert f"saved step {max(steps)} in" in text


@pytest.mark.slow
def test_two_processes_validate_like_one_and_leave_a_checkpoint_for_one(photographs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = {**SETTINGS, "total_steps": 2, "validation__num_images": 3, "validation__guidance_scale": 1.5}
    alone = run_trainer(small_arguments(one, photographs, **settings), env=two_devices())
    assert alone.returncode == 0, alone.stderr
    command = two_processes(small_arguments(two, photographs, **settings))
    options = {"cwd": REPOSITORY, "env": one_device(), "capture_output": True, "text": True, "timeout": 300}
    together = subprocess.run(command, check=False, **options)
    assert together.returncode == 0, together.stdout + together.stderr
    tags = ("validation/loss", "validation/psnr_one_step", "validation/psnr_sampled", "validation/codebook/perplexity")
    assert_alike(one, two, tags)
    resumed = run_trainer(small_arguments(two, photographs, **{**settings, "total_steps": 3}), env=two_devices())
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step 2 of 3" in resumed.stdout
