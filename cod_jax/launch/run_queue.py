"""Run the points of a sweep on this machine, a few at a time, and remember which are done.

This is our own code because submitit, the library for such jobs, does not fit. Its local executor starts all jobs at
once, each behind a controller that outlives us; its jobs ignore SIGTERM, on which the trainer saves, and a cancelled
one is killed after a second. Under Slurm it submits pickled calls, and only from a machine with Slurm. Names, finished
points, GPUs and failures would still be ours.
"""

import collections
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.launch.plan import Run
from cod_jax.launch.processes import Process, StopSignals, device_environment, start, stop
from cod_jax.launch.results import table
from cod_jax.training.run_folder import steps_of

DONE_FILE = "sweep_done.json"
OUTPUT_FILE = "output.log"
POLL_SECONDS = 0.1


def is_done(run: Run) -> bool:
    """Return whether a queue has finished this run, with the same arguments and settings."""
    try:
        return json.loads((run.workdir / DONE_FILE).read_bytes()) == _description(run)
    except (OSError, ValueError):
        return False


def run_queue(runs: Sequence[Run], parallel: int, gpus_per_point: int | None = None) -> int:
    """Run the points that are not done yet, and go on when one fails.

    After SIGTERM or SIGINT no more runs start. Those under way get SIGTERM, on which the trainer saves and leaves; a
    second signal kills them. At the end a table of the results is printed.

    Args:
        runs: The points.
        parallel: How many run at a time.
        gpus_per_point: How many GPUs each run has to itself; without it every run sees the GPUs of this process.

    Returns:
        0 when all are done, 1 when some failed, 128 + N when signal N stopped the queue.

    Raises:
        UserError: There are not enough GPUs for the runs at a time; none has started.
    """
    slots = range(min(parallel, len(runs)))
    queue = _Queue(runs, [device_environment("cuda", gpus_per_point, slot) if gpus_per_point else {} for slot in slots])
    with StopSignals() as signals:
        try:
            while queue.jobs or (queue.waiting and not signals.received):
                if not signals.received:
                    queue.start_waiting()
                signals.pass_on(job.process for job in queue.jobs)
                queue.collect(stopping=bool(signals.received))
                time.sleep(POLL_SECONDS)
        finally:
            # Jobs are left only when something here went wrong. They must not run on unattended.
            stop((job.process for job in queue.jobs), grace_seconds=None)
    for line in table(runs):
        _say(line)
    _say(f"{queue.num_done} of {len(runs)} points are done, {len(queue.failures)} failed")
    for name, problem in queue.failures.items():
        print(f"{name}: {problem}", file=sys.stderr)
    if signals.received:
        _say("stopped; the same command resumes")
        return 128 + signals.received[0]
    return 1 if queue.failures else 0


@dataclasses.dataclass
class _Job:
    """A run under way, and the environment that it occupies."""

    run: Run
    label: str
    environment: Mapping[str, str]
    process: Process
    begin: float


class _Queue:
    """The runs that wait, those under way, and how the others ended."""

    def __init__(self, runs: Sequence[Run], environments: Sequence[Mapping[str, str]]):
        self.waiting = collections.deque(
            (f"[{number}/{len(runs)}] {run.name}", run) for number, run in enumerate(runs, 1)
        )
        self.jobs: list[_Job] = []
        self.num_done = 0
        self.failures: dict[str, str] = {}
        self._free = collections.deque(environments)

    def start_waiting(self) -> None:
        """Start waiting runs while there is room."""
        while self.waiting and self._free:
            label, run = self.waiting.popleft()
            if is_done(run):
                self.num_done += 1
                _say(f"{label}: done before")
                continue
            try:
                run.workdir.mkdir(parents=True, exist_ok=True)
                with (run.workdir / OUTPUT_FILE).open("ab") as output:
                    process = start(run.command, self._free[0], output)
            except OSError as error:
                self._fail(run, label, f"cannot be started ({files.reason(error)})")
                continue
            self.jobs.append(_Job(run, label, self._free.popleft(), process, time.monotonic()))
            _say(f"{label}: started, its output goes to {run.workdir / OUTPUT_FILE}")

    def collect(self, *, stopping: bool) -> None:
        """Take note of the runs that have ended."""
        for job in [job for job in self.jobs if job.process.poll() is not None]:
            self.jobs.remove(job)
            self._free.append(job.environment)
            after = f"after {time.monotonic() - job.begin:.0f} s"
            problem = _finish(job.run, job.process.returncode)
            if problem is None:
                self.num_done += 1
                _say(f"{job.label}: done {after}")
            elif stopping:
                _say(f"{job.label}: stopped {after}")
            else:
                self._fail(job.run, job.label, problem)

    def _fail(self, run: Run, label: str, problem: str) -> None:
        self.failures[run.name] = problem
        _say(f"{label}: {problem}")


def _finish(run: Run, code: int) -> str | None:
    """Mark a run that has ended as done, or return why it is not."""
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        return f"failed with {how}: {_last_line(run)}"
    # Told to stop, a trainer saves and leaves with exit code 0; only the last step's checkpoint says that it is done.
    last_step = run.settings["total_steps"]
    if last_step not in steps_of(run.address or run.workdir):
        return f"ended before step {last_step} as if told to stop; the same command resumes"
    try:
        files.write_bytes(run.workdir / DONE_FILE, (json.dumps(_description(run), indent=1) + "\n").encode())
    except (UserError, OSError) as error:
        return f"finished but cannot be marked as done ({files.reason(error)})"
    return None


def _description(run: Run) -> dict[str, Any]:
    """Return what has to be the same for a run to count as done; a changed config file changes the settings."""
    return json.loads(json.dumps({"arguments": run.arguments, "settings": run.settings}))


def _last_line(run: Run) -> str:
    """Return the last line of a run's output, which says what was wrong."""
    path = run.workdir / OUTPUT_FILE
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return str(error)
    return files.printable(lines[-1], sys.stdout.encoding) if lines else f"{path} is empty"


def _say(text: str) -> None:
    print(text, flush=True)
