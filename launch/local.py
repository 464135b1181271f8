r"""Start several processes of the trainer on one machine, as a rehearsal of a run on several machines.

    python -m launch.local --processes 2 --devices-per-process 4 -- --config configs/demo.py --workdir runs/local \
        --config.data.source=PHOTOS

Everything after `--` goes to `python -m cod_jax.train` as it is. Every line of output carries the number of its
process. When one process fails the others are stopped and its exit code is returned. SIGTERM and SIGINT are passed on,
both as SIGTERM, so that the trainers save and leave. One process can drive all accelerators of a machine: to train on
several GPUs no launcher is needed.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NoReturn

from cod_jax.errors import UserError

GRACE_SECONDS = 15.0
POLL_SECONDS = 0.1


def free_port() -> int:
    """Return a TCP port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def device_environment(platform: str, devices_per_process: int, process_id: int) -> dict[str, str]:
    """Return the environment variables that give a process its own devices.

    Args:
        platform: "cpu" makes virtual devices, "cuda" hands out GPUs in order: those of CUDA_VISIBLE_DEVICES where it is
            set, else the machine's.
        devices_per_process: Devices each process sees.
        process_id: Number of the process, from 0.

    Raises:
        UserError: CUDA_VISIBLE_DEVICES names fewer GPUs than that.
    """
    if platform == "cuda":
        first, end = process_id * devices_per_process, (process_id + 1) * devices_per_process
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = [str(i) for i in range(end)] if visible is None else [gpu for gpu in visible.split(",") if gpu]
        if end > len(gpus):
            raise UserError(f"{end} GPUs are needed, but CUDA_VISIBLE_DEVICES={visible} names {len(gpus)}; use fewer")
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[first:end])}
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={devices_per_process}")
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}


def run(commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]]) -> int:
    """Run commands side by side until all have ended or one has failed.

    Args:
        commands: One command line per process.
        environments: For each process the variables added to the environment.

    Returns:
        0 when all ended well, else the exit code of the first that failed (128 + N when signal N ended it).
    """
    processes: list[subprocess.Popen[str]] = []
    signals_received = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal signals_received
        signals_received += 1
        for process in processes:
            # The first asks for a clean end, by the one signal that `jax.distributed` makes known to all processes.
            # Whoever repeats it means it.
            _signal(process, signal.SIGTERM if signals_received == 1 else signal.SIGKILL)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    readers: list[threading.Thread] = []
    try:
        for index, (command, environment) in enumerate(zip(commands, environments, strict=True)):
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # a Ctrl-C on the terminal reaches the processes once, through us
            )
            processes.append(process)
            readers.append(threading.Thread(target=_copy_lines, args=(index, process), daemon=True))
            readers[-1].start()
        return _wait(processes)
    finally:
        _stop(processes)
        for reader in readers:
            reader.join(timeout=GRACE_SECONDS)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[subprocess.Popen[str]]) -> int:
    """Return the first exit code that is not 0, as soon as there is one, or 0 when all have ended."""
    while True:
        codes = [process.poll() for process in processes]
        for index, code in enumerate(codes):
            if code:
                sys.stderr.write(f"process {index} of {len(processes)} failed with exit code {code}\n")
                return code if code > 0 else 128 - code
        if all(code == 0 for code in codes):
            return 0
        time.sleep(POLL_SECONDS)


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """End what still runs: ask first, then insist."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to a process if it still runs."""
    if process.poll() is None:
        process.send_signal(number)


def _copy_lines(index: int, process: subprocess.Popen[str]) -> None:
    """Copy the output of a process to ours, each line led by the number of the process."""
    if process.stdout is None:
        return
    with process.stdout as lines:
        for line in lines:
            sys.stdout.write(f"[{index}] " + line.rstrip("\n") + "\n")
            sys.stdout.flush()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = "; arguments of the trainer go behind --" if message.startswith("unrecognized") else ""
        super().error(message + hint)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the launcher and return its exit code."""
    parser = _Parser(
        prog="python -m launch.local",
        description="Start several processes of the trainer on one machine.",
        epilog="Example: python -m launch.local --processes 2 -- --config configs/demo.py --workdir runs/local",
        usage="%(prog)s --processes N [options] -- arguments of cod_jax.train",
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=int, required=True, metavar="N", help="number of processes")
    parser.add_argument(
        "--devices-per-process",
        "--devices_per_process",  # as the option was called before
        type=int,
        default=1,
        metavar="N",
        help="devices each process sees (default: 1)",
    )
    parser.add_argument(
        "--platform", choices=("cpu", "cuda"), default="cpu", help="virtual CPU devices or the machine's GPUs"
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_args(arguments[:cut])
    trainer = arguments[cut + 1 :]
    if args.processes < 1 or args.devices_per_process < 1:
        parser.error("--processes and --devices-per-process must be at least 1")
    if not trainer:
        parser.error("no arguments for the trainer: add -- --config FILE --workdir DIR")
    address = f"localhost:{free_port()}"
    commands = [
        [
            *(sys.executable, "-m", "cod_jax.train"),
            *("--distributed", f"--coordinator_address={address}"),
            *(f"--num_processes={args.processes}", f"--process_id={index}"),
            *trainer,
        ]
        for index in range(args.processes)
    ]
    try:
        environments = [
            device_environment(args.platform, args.devices_per_process, index) for index in range(args.processes)
        ]
    except UserError as error:
        parser.error(str(error))
    return run(commands, environments)


if __name__ == "__main__":
    sys.exit(main())
