"""Several processes of one run on one machine, as a rehearsal of a run on several machines."""

import io
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from cod_jax.launch.plan import TRAINER
from cod_jax.launch.processes import Process, StopSignals, start, stop

GRACE_SECONDS = 15.0
POLL_SECONDS = 0.1
# Status of a trainer whose arguments, data or devices cannot be used.
_NOTHING_TRIED = 2
# What Gloo prints about each device that has found the others, or a part of it; several devices print at once.
_GLOO = re.compile(r"(\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :|\d|\s)+")


def trainer_commands(num_processes: int, arguments: Sequence[str]) -> list[list[str]]:
    """Return the command line of each process of one run.

    Args:
        num_processes: How many processes share the run.
        arguments: Those of the trainer, the same for all.
    """
    shared = ["--distributed", f"--coordinator_address=localhost:{free_port()}", f"--num_processes={num_processes}"]
    return [[*TRAINER, *shared, f"--process_id={index}", *arguments] for index in range(num_processes)]


def run(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], status_when_stopped: int = 0
) -> int:
    """Run commands side by side until all have ended or one has failed; the others are then stopped.

    Every line of their output is printed after the number of its process. SIGTERM and SIGINT are passed on as SIGTERM,
    on which the trainers save and leave; a second signal kills them.

    Args:
        commands: One command line per process.
        environments: For each process, the variables added to the environment.
        status_when_stopped: Exit code of a command that saved and left because it was told to.

    Returns:
        The exit code of the first that failed (128 + N when signal N ended it); else `status_when_stopped` if some were
        told to stop, and 0 if all went on to their end.
    """
    processes: list[Process] = []
    readers: list[threading.Thread] = []
    failed: tuple[int, int] | None = None
    with StopSignals() as signals:
        try:
            for index, (command, environment) in enumerate(zip(commands, environments, strict=True)):
                processes.append(start(command, environment, subprocess.PIPE))
                readers.append(threading.Thread(target=_copy_lines, args=(index, processes[-1].stdout), daemon=True))
                readers[-1].start()
            codes: list[int | None] = [None]
            good = (None, 0, status_when_stopped)  # others than this process may tell them to stop
            while failed is None and None in codes:
                if signals.pass_on(processes):
                    _tell("told to stop: a process that trains saves its step and ends; a second signal kills them all")
                time.sleep(POLL_SECONDS)
                codes = [process.poll() for process in processes]
                failed = next(((n, code) for n, code in enumerate(codes) if code not in good), None)
            if failed is not None:
                index, code = failed
                how = f"failed with exit code {code}" if code > 0 else f"was ended by signal {-code}"
                _tell(f"process [{index}] of {len(processes)} {how}")
        finally:
            stop(processes, GRACE_SECONDS)
            for reader in readers:
                reader.join(timeout=GRACE_SECONDS)
    if failed is None:
        return status_when_stopped if status_when_stopped in codes else 0
    if failed[1] != _NOTHING_TRIED:
        # Last, where the long messages of the other processes do not push it off the screen.
        _tell("the same command resumes from the newest checkpoint, if one is saved")
    return failed[1] if failed[1] > 0 else 128 - failed[1]


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _copy_lines(index: int, output: IO[bytes]) -> None:
    """Print the output of a process without Gloo's notices, each line after the number of the process."""
    with io.TextIOWrapper(output, errors="replace") as lines:
        for line in lines:
            if _GLOO.fullmatch(line) and not line.isspace():
                continue
            # One write per line: the lines of several processes must not mix.
            sys.stdout.write(f"[{index}] " + line.rstrip("\n") + "\n")
            sys.stdout.flush()


def free_port() -> int:
    """Return a TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
