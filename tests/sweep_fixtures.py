"""A place for sweeps, with a small script instead of the trainer."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cod_jax.commands.train import read_arguments
from cod_jax.launch import plan
from cod_jax.launch.plan import Run

BITS, RATE = "config.model.codec.bottleneck.bits", "config.optimizer.learning_rate"

# Does what the learning rate says. A trainer that reaches its last step leaves a checkpoint named after it.
TRAINER = """
import os, signal, sys, time
from pathlib import Path
from typing import Any

values = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
workdir, rate = Path(values["workdir"]), float(values["config.optimizer.learning_rate"])
with (workdir / "calls.txt").open("a") as file:
    print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), file=file)

def save(*_):
    (workdir / "saved").touch()
    sys.exit(0)

if rate == 0.5:
    print("some output")
    sys.exit("trainer: error: no luck")
if rate == 0.25:
    sys.exit(0)
if rate >= 2:
    # Tells the queue to stop, as a user would. At 3 it does not obey, and tells the queue once more.
    tell = lambda *_: os.kill(os.getppid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, save if rate == 2 else tell)
    tell()
    for _ in range(600):
        time.sleep(0.1)
begin = time.monotonic()
time.sleep(float(os.environ.get("TRAINER_SECONDS", "0")))
(workdir / "times.txt").write_text(f"{begin} {time.monotonic()}")
(workdir / "checkpoints" / values.get("config.total_steps", "1000")).mkdir(parents=True, exist_ok=True)
"""


class SweepFolder:
    """Photographs, the tiny config that names them, and the folder of a sweep.

    Args:
        folder: An empty folder.
        monkeypatch: Puts the script in the place of the trainer.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder = folder
        self.workdir: Any = folder / "runs"
        self.photos = folder / "photos"
        self.photos.mkdir()
        (self.photos / "a.png").touch()  # looked for by its name; nothing here reads it
        self.config = folder / "configs" / "tiny.py"
        self.config.parent.mkdir()
        self.config.write_text(
            "from configs import tiny\n\ndef get_config():\n    config = tiny.get_config()\n"
            f"    config.data.source = {str(self.photos)!r}\n    return config\n"
        )
        script = folder / "trainer.py"
        script.write_text(TRAINER)
        monkeypatch.setattr(plan, "TRAINER", (sys.executable, str(script)))

    def file(self, expression: str) -> str:
        """Write a sweep file that returns the value of an expression."""
        path = self.folder / "sweep.py"
        path.write_text(f"BITS, RATE = {BITS!r}, {RATE!r}\ndef get_hyper(hyper):\n    return {expression}\n")
        return str(path)

    def arguments(self, expression: str, *more: str) -> list[str]:
        """Return the arguments of the command for such a sweep."""
        file = self.file(expression)
        return ["--sweep", file, "--config", str(self.config), "--workdir", str(self.workdir), *more]

    def runs(self, expression: str, *extra: str) -> Sequence[Run]:
        """Return the runs of such a sweep."""
        return plan.plan(plan.load_points(self.file(expression)), str(self.config), self.workdir, extra, read_arguments)

    def calls(self) -> dict[str, int]:
        """Return how often each point was started."""
        return {path.parent.name: len(path.read_text().splitlines()) for path in self.workdir.glob("*/calls.txt")}

    def gpus(self) -> list[str]:
        """Return the GPUs that each run saw, sorted."""
        return sorted(path.read_text().strip() for path in self.workdir.glob("*/calls.txt"))
