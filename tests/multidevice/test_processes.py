"""Two processes that train together against one that trains alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cod_jax.launch.local import trainer_commands
from cod_jax.training.run_folder import steps_of
from tests.training_fixtures import REPOSITORY, one_device, run_trainer, small_arguments, write_photographs

# Without a validation, which would have to be compiled three times; the soak test has one.
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


@pytest.mark.soak
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


HEARTBEAT_SECONDS = 10


def started(arguments: list[str], folder: Path) -> Iterator[subprocess.Popen]:
    """Two processes without a launcher, as on a pod, each with a file for its output."""
    for index, command in enumerate(trainer_commands(2, arguments)):
        with (folder / f"output{index}").open("wb") as output:
            yield subprocess.Popen(command, cwd=REPOSITORY, env=one_device(), stdout=output, stderr=output)


def wait_for(file: Path, text: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while text not in file.read_text(errors="replace"):
        assert time.monotonic() < deadline, file.read_text(errors="replace")
        time.sleep(0.1)


def assert_last_words(index: int, file: Path, may_be_aborted: bool) -> None:
    """The last line says that another process is gone, or if JAX was quicker, points at what JAX says of that."""
    # The line of a process that was aborted comes just after its end.
    wait_for(file, "; the same command resumes from the newest checkpoint, if one is saved\n", 10)
    output = file.read_text()
    line = output.splitlines()[-1]
    if f"error: process {index} of 2 lost contact with another one (" not in line:
        assert may_be_aborted, output
        assert "error: this process was killed or aborted, or hung; if JAX names its distributed service above" in line
        assert "JAX distributed service detected fatal errors" in output


ADDING = """
import logging, sys, time
import jax
from jax.experimental import multihost_utils
from cod_jax.parallel.processes import join_processes, leaving_with_lost_processes
logging.basicConfig(format="%(message)s")
join_processes(True, sys.argv[1], 2, int(sys.argv[2]), heartbeat_seconds=10)
with leaving_with_lost_processes():
    for step in range(10000):
        multihost_utils.process_allgather(jax.numpy.int32(step))
        print("step", step, flush=True)
        time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_process_ends_in_time_when_one_is_killed(tmp_path, victim):
    (address,) = [word.partition("=")[2] for word in trainer_commands(1, [])[0] if "coordinator" in word]
    processes = []
    for index in (0, 1):
        command = [sys.executable, "-c", ADDING, address, str(index)]
        with (tmp_path / f"output{index}").open("wb") as output:
            processes.append(subprocess.Popen(command, env=one_device(), stdout=output, stderr=output))
    try:
        wait_for(tmp_path / "output0", "step 3", 60)
        processes[victim].kill()
        assert processes[1 - victim].wait(timeout=3 * HEARTBEAT_SECONDS) != 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert_last_words(1 - victim, tmp_path / f"output{1 - victim}", may_be_aborted=victim == 0)


@pytest.mark.soak
@pytest.mark.parametrize("when", [" step 6/", "preparing the step"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_other_in_time_and_the_run_goes_on(photographs, tmp_path, victim, when):
    run = tmp_path / "run"
    settings = {**SETTINGS, "checkpoint__every_steps": 3, "limits__heartbeat_seconds": HEARTBEAT_SECONDS}
    processes = list(started(small_arguments(run, photographs, **{**settings, "total_steps": 1_000_000}), tmp_path))
    try:
        wait_for(tmp_path / "output0", when)
        processes[victim].kill()
        assert processes[1 - victim].wait(timeout=3 * HEARTBEAT_SECONDS) not in (0, None)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert_last_words(1 - victim, tmp_path / f"output{1 - victim}", may_be_aborted=victim == 0 or "step 6" not in when)
    assert "data: " in (run / "train.1.log").read_text()
    saved = max(steps_of(run), default=0)
    arguments = small_arguments(run, photographs, **{**settings, "total_steps": saved + 2})
    processes = list(started(arguments, tmp_path))
    assert [process.wait(timeout=300) for process in processes] == [0, 0], (tmp_path / "output0").read_text()
    text = (tmp_path / "output0").read_text()
    assert f"resumed after step {saved} of" in text or not saved
    assert " in 2 starts" in text
