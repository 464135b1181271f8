"""A trace of some steps, for TensorBoard and XProf."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

_logger = logging.getLogger(__name__)


class Profile:
    """Tracer of the steps from a first to a last one, both included.

    Args:
        folder: Folder of the TensorBoard files, which takes the trace. None traces nothing.
        steps: First and last step, or None to trace nothing.
        taken: The steps that this start of the run takes, if nothing stops it.
        settle: Function that waits until all steps so far have ended.
    """

    def __init__(self, folder: Path | None, steps: tuple[int, int] | None, taken: range, settle: Callable[[], None]):
        self._folder = folder
        self._first, self._last = steps or (0, -1)
        self._settle = settle
        self._running = False
        if folder is not None and steps is not None and not (self._first < taken.stop and taken.start <= self._last):
            _logger.warning(
                "expected steps to trace among %d to %d, which this run takes, got %d to %d; nothing is traced, so "
                "give others with --profile",
                taken.start,
                taken.stop - 1,
                *steps,
            )

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Trace what runs inside, if the step is one of those to trace."""
        if self._folder is not None and not self._running and self._first <= step <= self._last:
            self._settle()
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        if self._running and step >= self._last:
            self._settle()
            self.close()
            _logger.info(
                "traced steps %d to %d; to see them: pip install xprof, then tensorboard --logdir %s, tab Profile",
                self._first,
                self._last,
                self._folder,
            )

    def close(self) -> None:
        """End the trace, if one is being made."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
