"""Run the trainer for several points, a few at a time, and remember which are done."""

import collections
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.training.checkpoint import checkpoint_directory
from launch.local import device_environment

TRAINER = (sys.executable, "-m", "cod_jax.train")
DONE_FILE = "sweep_done.json"
OUTPUT_FILE = "output.log"
POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Run:
    """One point of a sweep.

    Attributes:
        name: For people, and of the folder.
        workdir: Folder of the run.
        arguments: Arguments of the trainer except --workdir.
        settings: All settings that come out of them.
    """

    name: str
    workdir: Path
    arguments: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        """The whole command line."""
        return [*TRAINER, *self.trainer_arguments]

    @property
    def trainer_arguments(self) -> list[str]:
        """What follows the trainer's name."""
        return [*self.arguments, f"--workdir={self.workdir}"]


@dataclasses.dataclass
class _Job:
    """A run under way."""

    run: Run
    label: str
    slot: int
    process: subprocess.Popen[bytes]
    begin: float
    signals_sent: int = 0


def is_done(run: Run) -> bool:
    """Whether a queue has finished this run, with the same arguments and settings."""
    try:
        return json.loads((run.workdir / DONE_FILE).read_bytes()) == _description(run)
    except (OSError, ValueError):
        return False


def run_queue(runs: Sequence[Run], parallel: int, gpus_per_point: int | None = None) -> int:
    """Run what is not done yet, and go on when a run fails.

    SIGTERM and SIGINT start no more runs and are passed on as SIGTERM, on which the trainer saves; a second signal
    kills.

    Args:
        runs: The points.
        parallel: How many run at a time.
        gpus_per_point: GPUs that each run sees, its own ones; without it a run sees what this process sees.

    Returns:
        0 when all are done, 1 when some failed, 2 without enough GPUs for those that run at a time, 128 + N when signal
        N stopped the queue.
    """
    try:
        queue = _Queue(runs, parallel, gpus_per_point)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with _signals() as received:
        try:
            while queue.jobs or (queue.waiting and not received):
                queue.start(received)
                _pass_on(received, queue.jobs)
                queue.collect(received)
                time.sleep(POLL_SECONDS)
        finally:
            # Reached with jobs only when something here went wrong: nothing keeps running unattended.
            for job in queue.jobs:
                job.process.terminate()
            for job in queue.jobs:
                job.process.wait()
    _say(f"{queue.num_done} of {len(runs)} points are done, {len(queue.failures)} failed")
    for name, problem in queue.failures.items():
        print(f"{name}: {problem}", file=sys.stderr)
    if received:
        _say("stopped; the same command goes on")
        return 128 + received[0]
    return 1 if queue.failures else 0


class _Queue:
    """What waits, what runs, and what became of the rest."""

    def __init__(self, runs: Sequence[Run], parallel: int, gpus_per_point: int | None):
        self.waiting = collections.deque(
            (f"[{number}/{len(runs)}] {run.name}", run) for number, run in enumerate(runs, 1)
        )
        self.jobs: list[_Job] = []
        self.num_done = 0
        self.failures: dict[str, str] = {}
        self._slots = set(range(min(parallel, len(runs))))
        self._gpus = [
            device_environment("cuda", gpus_per_point, slot) if gpus_per_point else {} for slot in self._slots
        ]

    def start(self, received: Sequence[int]) -> None:
        """Start what waits while there is room, unless told to stop."""
        while self.waiting and self._slots and not received:
            label, run = self.waiting.popleft()
            if is_done(run):
                self.num_done += 1
                _say(f"{label}: done before")
                continue
            slot = min(self._slots)
            try:
                self.jobs.append(_Job(run, label, slot, _start(run, self._gpus[slot]), time.monotonic()))
            except OSError as error:
                self._fail(run, label, f"cannot be started ({error})")
                continue
            self._slots.remove(slot)
            _say(f"{label}: started, its output goes to {run.workdir / OUTPUT_FILE}")

    def collect(self, received: Sequence[int]) -> None:
        """Take note of the jobs that have ended."""
        for job in [job for job in self.jobs if job.process.poll() is not None]:
            self.jobs.remove(job)
            self._slots.add(job.slot)
            after = f"after {time.monotonic() - job.begin:.0f} s"
            problem = _problem(job.run, job.process.returncode)
            if problem is None:
                _mark_done(job.run)
                self.num_done += 1
                _say(f"{job.label}: done {after}")
            elif received:
                _say(f"{job.label}: stopped {after}")
            else:
                self._fail(job.run, job.label, problem)

    def _fail(self, run: Run, label: str, problem: str) -> None:
        self.failures[run.name] = problem
        _say(f"{label}: {problem}")


def _start(run: Run, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a run with its output in a file of its folder."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    with (run.workdir / OUTPUT_FILE).open("ab") as output:
        return subprocess.Popen(
            run.command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C on the terminal reaches the trainers once, through us
        )


def _pass_on(received: Sequence[int], jobs: Sequence[_Job]) -> None:
    """Ask the jobs to save and leave, then insist."""
    for job in jobs:
        if job.signals_sent < min(len(received), 2):
            job.signals_sent = min(len(received), 2)
            job.process.send_signal(signal.SIGTERM if job.signals_sent == 1 else signal.SIGKILL)


def _problem(run: Run, code: int) -> str | None:
    """Why a run that has ended is not done, or None if it is."""
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        return f"failed with {how}: {_last_line(run.workdir / OUTPUT_FILE)}"
    # Told to stop, a trainer saves and leaves with exit code 0; only the last step's checkpoint says that it is done.
    last_step = run.settings["total_steps"]
    if not (checkpoint_directory(run.workdir) / str(last_step)).is_dir():
        return f"ended before step {last_step} as if told to stop; the same command goes on"
    return None


def _mark_done(run: Run) -> None:
    files.write_bytes(run.workdir / DONE_FILE, (json.dumps(_description(run), indent=1) + "\n").encode())


def _description(run: Run) -> dict[str, Any]:
    """What has to be the same for a run to count as done: a changed config file changes the settings."""
    return json.loads(json.dumps({"arguments": run.arguments, "settings": run.settings}))


def _last_line(path: Path) -> str:
    """The last line of a run's output, which says what was wrong."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return str(error)
    return files.printable(lines[-1], sys.stdout.encoding) if lines else f"{path} is empty"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the signals that told this process to stop, as they come."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(text, flush=True)
