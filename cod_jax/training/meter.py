"""Speed of a run: images per second, seconds per step, waiting for data, utilisation."""

from cod_jax.training.goodput import STEPPING, WAITING, WallTime


class Meter:
    """Speed of the steps between two reports.

    Args:
        clock: The clock of the run; only its phases "stepping" and "waiting for data" count as time of steps.
        batch_size: Images per step.
        flops_per_step: Operations of a step, see `flops.count_flops`; with None no utilisation is reported.
        peak_flops_per_second: Peak rate of all devices together; with None no utilisation is reported.
    """

    def __init__(
        self, clock: WallTime, batch_size: int, flops_per_step: int | None, peak_flops_per_second: float | None
    ):
        self._clock = clock
        self._batch_size = batch_size
        self._flops = flops_per_step
        self._peak = peak_flops_per_second
        self._stepped, self._waited = self._times()

    def report(self, num_steps: int) -> dict[str, float]:
        """Return the speed over the steps since the last report, which must be finished, and start again."""
        stepped, waited = self._times()
        elapsed = max(stepped + waited - self._stepped - self._waited, 1e-9)
        seconds = elapsed / max(num_steps, 1)
        values = {
            "images_per_second": self._batch_size / seconds,
            "step_seconds": seconds,
            "data_wait_share": (waited - self._waited) / elapsed,
        }
        if self._flops is not None and self._peak is not None:
            values["model_flops_utilisation"] = self._flops / seconds / self._peak
        self._stepped, self._waited = stepped, waited
        return values

    def _times(self) -> tuple[float, float]:
        seconds = self._clock.now()
        return seconds[STEPPING], seconds[WAITING]
