"""All that is worth measuring on an accelerator, in one go and within a given time.

Each measurement is a command `cod benchmark` of its own, and the most important ones come first. What has been measured
is in the folder at once, so an end of the rented time takes only the rest away.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cod_jax import files

# A process that has less time than this does not get to its first measured call.
SHORTEST_SECONDS = 20.0
# The file with the numbers of all.
MEASURED = "measured.json"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One command `cod benchmark`.

    Attributes:
        name: Name of its files.
        arguments: What comes after `cod benchmark`.
        environment: Variables that it changes.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def measurements(*, small: bool) -> list[Measurement]:
    """Return what is measured, in this order.

    Args:
        small: Take the included model, small pictures and few calls, so that a CPU does all in minutes.
    """
    model = ["--model", "compact"] if small else []
    sizes = ["64x48", "96x64"] if small else ["1920x1024", "768x512", "3840x2160"]
    one = [*model, "--size", sizes[0]]
    calls = ["--repeats", "2" if small else "20"]
    configs = ["configs/tiny.py"] if small else ["configs/lite.py", "configs/pixel.py", "configs/compact.py"]
    size = ["--image-size", "32" if small else "256", "--batch-size", "2" if small else "32"]
    narrow = ["--dtype", "bfloat16"]
    # Without them a GPU gets one kernel after the other from the host.
    without_buffers = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer=".strip()}
    return [
        Measurement("codec", ["codec", *narrow, *one, *calls]),
        *(
            Measurement(f"train-{Path(config).stem}", ["train", "--config", config, *size, *calls])
            for config in configs
        ),
        Measurement("codec-without-command-buffers", ["codec", *narrow, *one, *calls], without_buffers),
        Measurement("codec-float32", ["codec", "--dtype", "float32", *one, *calls]),
        Measurement("codec-sizes", ["codec", *narrow, *model, "--size", *sizes[1:], *calls]),
        Measurement("compact", ["codec", *narrow, "--model", "compact", "--size", *sizes, *calls]),
    ]


def measure_device(folder: Path, seconds: float, chosen: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Run measurements until the time is over.

    Args:
        folder: Gets NAME.json, the numbers, and NAME.txt, what the command printed, of each.
        seconds: Time for all. One that is not done by then is stopped.
        chosen: The measurements.

    Returns:
        JSON values for each measurement: "name", "arguments", "environment", "seconds", "state" ("done", "failed",
        "stopped", or "left out" where the time was over before), and "printed".
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    found = []
    for one in chosen:
        begin = time.monotonic()
        is_over = bool(found) and end - begin < SHORTEST_SECONDS
        state = "left out" if is_over else _run(folder, one, end - begin)
        printed = folder / f"{one.name}.txt"
        text = printed.read_text(errors="replace") if state != "left out" else ""
        found.append(
            {
                "name": one.name,
                "arguments": list(one.arguments),
                "environment": dict(one.environment),
                "seconds": time.monotonic() - begin,
                "state": state,
                "printed": text.splitlines(),
            }
        )
        files.write_bytes(folder / MEASURED, (json.dumps(found, indent=2) + "\n").encode())
    return found


def _run(folder: Path, one: Measurement, seconds: float) -> str:
    """Run one measurement and return its state."""
    command = [sys.executable, "-m", "cod_jax.benchmark", *one.arguments, "--output", str(folder / f"{one.name}.json")]
    with (folder / f"{one.name}.txt").open("wb") as output:
        # A session of its own, because the processes that it starts are to end with it.
        process = subprocess.Popen(
            command, env={**os.environ, **one.environment}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            return "failed" if process.wait(seconds) else "done"
        except subprocess.TimeoutExpired:
            return "stopped"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
