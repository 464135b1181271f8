"""Work in fresh processes, which know nothing but what they are given and what is in files; the memory of a process."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

# Where Linux tells about this process.
STATUS = Path("/proc/self/status")
# What limits the devices of a process, for NVIDIA's and for AMD's.
VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def one_device_each(platform: str, number: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the environment variables of processes of which each sees one device; [{}] for a single process.

    Args:
        platform: JAX's name of the platform, "cpu", "gpu" or "tpu". The cores of a CPU are one device, and the chips of
            a TPU host cannot be shared by processes.
        number: How many devices this process sees.
        environment: Its environment variables.
    """
    if platform != "gpu" or number < 2:
        return [{}]
    name = next((one for one in VISIBLE_DEVICES if one in environment), VISIBLE_DEVICES[0])
    seen = environment.get(name, "").split(",") if environment.get(name) else list(map(str, range(number)))
    return [{name: device.strip()} for device in seen[:number]]


@contextlib.contextmanager
def fresh_processes(environments: Sequence[Mapping[str, str]]) -> Iterator[Executor]:
    """Give an executor of new processes, which end with the block; what was not begun by then is given up.

    Args:
        environments: Environment variables of each process, beside those of this one.
    """
    context = multiprocessing.get_context("spawn")
    waiting = context.SimpleQueue()
    for environment in environments:
        waiting.put(dict(environment))
    pool = ProcessPoolExecutor(len(environments), context, _start, (waiting,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory of this process so far; None where the system does not tell."""
    if STATUS.exists():
        # What `resource` tells on Linux is at least what the parent process had when it started this one.
        for line in STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _start(waiting: "multiprocessing.SimpleQueue[dict[str, str]]") -> None:
    """Take an environment, leave Ctrl-C and warnings to the parent, and end with it even if it is killed."""
    os.environ.update(waiting.get())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", UserWarning)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
