"""Numbers of a run for people: log lines, TensorBoard, and the end of a run that learns nothing."""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

from cod_jax.training.writers import TensorBoardWriter

_logger = logging.getLogger(__name__)

# Metrics that count or set rather than measure: their last value stands for an interval.
_LAST_VALUE = ("learning_rate", "skipped", "consecutive_skipped")


class TrainingError(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


class Report:
    """Writes what a run measures.

    Args:
      writer: Of the TensorBoard files.
      total_steps: Of the run, for the log lines.
      max_consecutive_skipped: Steps in a row without finite gradients that end the run.
    """

    def __init__(self, writer: TensorBoardWriter, total_steps: int, max_consecutive_skipped: int):
        self._writer = writer
        self._total_steps = total_steps
        self._max_skipped = max_consecutive_skipped
        self._left_out: set[str] = set()

    def training(
        self,
        step: int,
        window: Sequence[Mapping[str, np.ndarray]],
        speed: Mapping[str, float],
        left_out: Mapping[str, str],
    ) -> None:
        """Write the metrics of the steps since the last report.

        Args:
          step: The last of them.
          window: Metrics of each step.
          speed: See `Meter.report`.
          left_out: Images that could not be used so far, with reasons.

        Raises:
          TrainingError: Too many steps in a row had no finite gradients.
        """
        values = average(window)
        for name in left_out.keys() - self._left_out:
            _logger.warning("image left out: %s: %s", name, left_out[name])
        self._left_out = set(left_out)
        self._writer.scalars(step, values)
        self._writer.scalars(step, {f"speed/{name}": value for name, value in speed.items()})
        self._writer.scalars(step, {"data/images_left_out": float(len(left_out))})
        terms = [f"{name.removeprefix('loss/')} {value:.4f}" for name, value in values.items() if name[:5] == "loss/"]
        parts = [
            f"loss {values['loss']:.4f} ({', '.join(terms)})",
            f"gradient_norm {values['gradient_norm']:.3g}",
            f"perplexity {values['codebook/perplexity']:.1f}",
            f"{speed['images_per_second']:.3g} images/s",
            f"{speed['step_seconds']:.3g} s/step",
            f"{100 * speed['data_wait_share']:.0f} % waiting for data",
        ]
        if "model_flops_utilisation" in speed:
            parts.append(f"{100 * speed['model_flops_utilisation']:.1f} % of peak")
        if values["skipped"]:
            parts.append(f"{values['skipped']:.0f} steps skipped so far")
        _logger.info("step %d/%d: %s", step, self._total_steps, ", ".join(parts))
        self._stop_if_skipping(step, window)

    def validation(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        """Write the results of a validation, see `Validator`."""
        self._writer.scalars(step, {f"validation/{name}": value for name, value in scalars.items()})
        self._writer.images(step, {f"validation/{name}": picture for name, picture in pictures.items()})
        _logger.info(
            "validation after step %d: loss %.4f, PSNR %.2f dB in one step, %.2f dB sampled, perplexity %.1f, "
            "nominal %.4f bits per pixel",
            step,
            scalars["loss"],
            scalars["psnr_one_step"],
            scalars["psnr_sampled"],
            scalars["codebook/perplexity"],
            scalars["nominal_bits_per_pixel"],
        )

    def _stop_if_skipping(self, step: int, window: Sequence[Mapping[str, np.ndarray]]) -> None:
        in_a_row, metrics = max(
            ((int(metrics["consecutive_skipped"]), metrics) for metrics in window), key=lambda pair: pair[0]
        )
        if in_a_row < self._max_skipped:
            return
        names = ("loss", "gradient_norm")
        broken = [
            f"{name} is {float(value)}"
            for name, value in metrics.items()
            if name.split("/")[0] in names and not math.isfinite(value)
        ]
        raise TrainingError(
            f"stopped at step {step}: {in_a_row} steps in a row had no finite gradients and were skipped "
            f"({', '.join(broken)}); lower optimizer.learning_rate, set optimizer.gradient_clip, or look at the images"
        )


def average(window: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Mean of each metric over the steps in which it was finite; counters keep their last value."""
    means = {}
    for name in window[-1]:
        values = np.array([metrics[name] for metrics in window], np.float64)
        finite = values[np.isfinite(values)]
        means[name] = float(values[-1] if name in _LAST_VALUE or not len(finite) else finite.mean())
    return means
