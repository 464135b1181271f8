"""Child processes: their devices, how they start, and how they are told to stop."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import IO

from cod_jax.errors import UserError

Process = subprocess.Popen[bytes]


def device_environment(platform: str, num_devices: int, index: int) -> dict[str, str]:
    """Return the environment variables that give a process devices of its own.

    Args:
        platform: "cpu" makes virtual devices. "cuda" hands out GPUs in order: those of CUDA_VISIBLE_DEVICES if it is
            set, else those of the machine.
        num_devices: Devices that each process sees.
        index: Number of the process, from 0.

    Raises:
        UserError: CUDA_VISIBLE_DEVICES names too few GPUs.
    """
    if platform == "cuda":
        first, end = index * num_devices, (index + 1) * num_devices
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = [str(i) for i in range(end)] if visible is None else [gpu for gpu in visible.split(",") if gpu]
        if end > len(gpus):
            raise UserError(f"{end} GPUs are needed, but CUDA_VISIBLE_DEVICES={visible} names {len(gpus)}; use fewer")
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[first:end])}
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={num_devices}")
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}


def start(command: Sequence[str], environment: Mapping[str, str], output: int | IO[bytes]) -> Process:
    """Start a command without input.

    Args:
        command: The program and its arguments.
        environment: Variables added to those of this process.
        output: Takes standard output and standard error, as in `subprocess`.

    Raises:
        OSError: The command cannot be started.
    """
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C on the terminal reaches the process once, through us
    )


def stop(processes: Iterable[Process], grace_seconds: float | None) -> None:
    """Ask processes to end, and kill those that still run after a while; None waits without limit."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + (grace_seconds or 0.0)
    for process in running:
        try:
            process.wait(None if grace_seconds is None else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class StopSignals:
    """Catches SIGTERM and SIGINT inside a `with` block, to pass them on to child processes.

    Attributes:
        received: Numbers of the signals so far.
    """

    def __init__(self):
        self.received: list[int] = []
        self._num_passed_on = 0

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def pass_on(self, processes: Iterable[Process]) -> bool:
        """Pass on what has arrived since the last call, and return whether it is the first signal.

        The first signal asks for a clean end, by the one signal that `jax.distributed` tells all processes of a run
        about. A second one kills.
        """
        before, self._num_passed_on = self._num_passed_on, len(self.received)
        if self._num_passed_on > before:
            for process in processes:
                process.send_signal(signal.SIGTERM if self._num_passed_on == 1 else signal.SIGKILL)
        return before == 0 and self._num_passed_on == 1

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)
