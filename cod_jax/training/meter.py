"""Speed of a run: images per second, seconds per step, waiting for data, utilisation."""

import contextlib
import time
from collections.abc import Iterator


class Meter:
    """Timer of the steps between two reports, without pauses.

    Args:
        batch_size: Images per step.
        flops_per_step: Operations of a step, see `flops.count_flops`; with None no utilisation is reported.
        peak_flops_per_second: Peak rate of all devices together; with None no utilisation is reported.
    """

    def __init__(self, batch_size: int, flops_per_step: int | None, peak_flops_per_second: float | None):
        self._batch_size = batch_size
        self._flops = flops_per_step
        self._peak = peak_flops_per_second
        self._restart()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time inside, for example a validation."""
        begin = time.monotonic()
        yield
        self._begin += time.monotonic() - begin

    def report(self, num_steps: int) -> dict[str, float]:
        """Return the speed over the steps since the last report, which must be finished, and start again."""
        elapsed = max(time.monotonic() - self._begin, 1e-9)
        seconds = elapsed / max(num_steps, 1)
        values = {
            "images_per_second": self._batch_size / seconds,
            "step_seconds": seconds,
            "data_wait_share": self._waited / elapsed,
        }
        if self._flops is not None and self._peak is not None:
            values["model_flops_utilisation"] = self._flops / seconds / self._peak
        self._restart()
        return values

    def _restart(self) -> None:
        self._begin = time.monotonic()
        self._waited = 0.0
