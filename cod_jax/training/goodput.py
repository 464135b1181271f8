"""Goodput: how the wall time of a run was spent, over all its starts."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cod_jax import files

_logger = logging.getLogger(__name__)

TIME_FILE = "time.json"
# Steps whose time is remembered, to know what a restart from one of them repeats.
_NUM_REMEMBERED = 16

STEPPING = "stepping"
WAITING = "waiting for data"
LOST = "lost"
PHASES = ("starting", "restoring", "compiling", STEPPING, WAITING, "validating", "saving", LOST)


class WallTime:
    """Clock that splits wall time into `PHASES`; "starting" is the first.

    The times of a run's earlier starts are added. Steps after the checkpoint that a run resumes from are taken again,
    so their time moves from "stepping" to "lost".

    Attributes:
        num_starts: How often the run was started.
        between_seconds: Seconds between starts, in which no process ran.

    Args:
        folder: Folder of the run, where the times are kept. None keeps nothing: one process of a run writes them.
        on_change: Called with the name of every phase that begins.
    """

    def __init__(self, folder: Path | None = None, on_change: Callable[[str], None] = lambda name: None):
        self._file = None if folder is None else folder / TIME_FILE
        self._on_change = on_change
        self._has_warned = False
        self._phase, self._since = PHASES[0], time.monotonic()
        stored = {} if self._file is None else _read(self._file)
        self._seconds = {name: float(stored.get("seconds", {}).get(name, 0.0)) for name in PHASES}
        self.num_starts = int(stored.get("num_starts", 0)) + 1
        # Clocks may be set back.
        away = max(0.0, time.time() - stored["written"]) if "written" in stored else 0.0
        self.between_seconds = float(stored.get("between_seconds", 0.0)) + away
        self._stepping_at = {int(step): float(value) for step, value in stored.get("stepping_at", {}).items()}

    def begin(self, name: str) -> None:
        """Count time as that of another phase from now on."""
        self._change(name)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside as that of a phase."""
        previous = self._change(name)
        try:
            yield
        finally:
            self._change(previous)

    def now(self) -> dict[str, float]:
        """Return the seconds of each phase so far."""
        self._change(self._phase)
        return dict(self._seconds)

    def resumed(self, step: int) -> None:
        """Note that the run goes on after a step: what it had stepped beyond is lost."""
        at = max((value for saved, value in self._stepping_at.items() if saved <= step), default=0.0)
        lost = max(0.0, self._seconds[STEPPING] - at)
        self._seconds[STEPPING] -= lost
        self._seconds[LOST] += lost
        self._stepping_at = {saved: value for saved, value in self._stepping_at.items() if saved <= step}

    def saved(self, step: int) -> None:
        """Note that a step is being saved, from which a later start may go on."""
        self._stepping_at[step] = self.now()[STEPPING]
        for old in sorted(self._stepping_at)[:-_NUM_REMEMBERED]:
            del self._stepping_at[old]
        self.write()

    def write(self) -> None:
        """Write the times to the file, which the next start reads."""
        if self._file is not None:
            values = {
                "num_starts": self.num_starts,
                "seconds": self.now(),
                "between_seconds": self.between_seconds,
                "stepping_at": self._stepping_at,
                "written": time.time(),
            }
            try:
                files.write_bytes(self._file, json.dumps(values, indent=1).encode())
            except OSError as error:
                # A run must not end because of its times. If the disk is full, the next checkpoint fails and says so.
                _logger.log(logging.DEBUG if self._has_warned else logging.WARNING, "times are not kept: %s", error)
                self._has_warned = True

    def scalars(self) -> dict[str, float]:
        """Return the seconds of each phase by name, and the share of stepping as "goodput"."""
        seconds = self.now()
        named = {f"{name.replace(' ', '_')}_seconds": value for name, value in seconds.items()}
        return {**named, "goodput": seconds[STEPPING] / max(sum(seconds.values()), 1e-9)}

    def summary(self) -> str:
        """Return one line for people."""
        seconds = self.now()
        total = max(sum(seconds.values()), 1e-9)
        starts = "in one start" if self.num_starts == 1 else f"in {self.num_starts} starts"
        between = f", {_duration(self.between_seconds)} between them" if self.num_starts > 1 else ""
        parts = [f"{100 * value / total:.1f} % {name}" for name, value in _largest_first(seconds) if value]
        return f"time: {_duration(total)} {starts}{between}: {', '.join(parts)}"

    def _change(self, name: str) -> str:
        now, previous = time.monotonic(), self._phase
        self._seconds[previous] += now - self._since
        self._phase, self._since = name, now
        if name != previous:
            self._on_change(name)
        return previous


def _read(file: Path) -> dict:
    """Return what an earlier start wrote, {} without it; the times are not worth a run that does not start."""
    try:
        stored = json.loads(file.read_bytes())
        fits = isinstance(stored["seconds"], dict) and isinstance(stored["stepping_at"], dict)
        return stored if fits and float(stored["written"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _largest_first(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
