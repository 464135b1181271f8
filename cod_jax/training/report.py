"""Log lines and TensorBoard records of a run."""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

from cod_jax.cores import num_cores
from cod_jax.training import memory
from cod_jax.training.goodput import WallTime
from cod_jax.training.ranking import DEFAULT
from cod_jax.training.writers import TensorBoardWriter

_logger = logging.getLogger(__name__)

# Counters, of which the last value of an interval is reported instead of the mean.
_COUNTERS = ("skipped", "consecutive_skipped")
# Share of the time, and number of reports in a row with it, from which advice on waiting for data is given. The first
# report includes the start of the threads.
_LONG_WAIT, _NUM_LONG_WAITS = 0.1, 3


class Report:
    """Writer of a run's measurements.

    Args:
        writer: Writer of the TensorBoard files.
        total_steps: Number of steps of the run, for the log lines.
        best_by: Name of the number of the validation that ranks the checkpoints, which its log lines show.
        num_threads: Threads that read images, for advice if the steps wait for them.
        num_workers: Worker processes with so many threads each; 0 for threads of this process.
    """

    def __init__(
        self,
        writer: TensorBoardWriter,
        total_steps: int,
        best_by: str = DEFAULT,
        num_threads: int | None = None,
        num_workers: int = 0,
    ):
        self._num_threads, self._num_workers = num_threads, num_workers
        self._waits = 0
        self._best_by = best_by
        self._writer = writer
        self._total_steps = total_steps
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
            step: The last of these steps.
            window: Metrics of each step.
            speed: Speed of these steps, see `Meter.report`.
            left_out: Images that could not be used so far, with reasons.
        """
        values = average(window)
        for name in left_out.keys() - self._left_out:
            _logger.warning("image left out: %s: %s", name, left_out[name])
        self._left_out = set(left_out)
        self._writer.scalars(step, values)
        self._writer.scalars(step, {f"speed/{name}": value for name, value in speed.items()})
        in_use = memory.in_use()
        self._writer.scalars(step, {"data/images_left_out": float(len(left_out)), **in_use})
        parts = [
            *(_summary(scope, values) for scope in dict.fromkeys(map(_scope, values)) if f"{scope}loss" in values),
            f"{speed['images_per_second']:.3g} images/s",
            f"{speed['step_seconds']:.3g} s/step",
            f"{100 * speed['data_wait_share']:.0f} % waiting for data",
        ]
        if "model_flops_utilisation" in speed:
            parts.append(f"{100 * speed['model_flops_utilisation']:.1f} % of peak")
        if values["skipped"]:
            parts.append(f"steps skipped so far: {values['skipped']:.0f}")
        if (peak := in_use.get("memory/peak_bytes_in_use")) is not None:
            parts.append(f"at most {peak / 2**30:.1f} GiB of device memory")
        _logger.info("step %d/%d: %s", step, self._total_steps, ", ".join(parts))
        self._advise(speed["data_wait_share"])

    def time(self, step: int, clock: WallTime) -> None:
        """Write how the wall time was spent so far; see `WallTime`."""
        self._writer.scalars(step, {f"time/{name}": value for name, value in clock.scalars().items()})
        clock.write()

    def _advise(self, waiting: float) -> None:
        """Say once what to do if the steps keep waiting for data."""
        self._waits = self._waits + 1 if waiting > _LONG_WAIT else 0
        if self._waits == _NUM_LONG_WAITS and self._num_threads is not None:
            _logger.warning(
                "the steps wait for data %.0f %% of the time: %s",
                100 * waiting,
                _advice(self._num_threads, self._num_workers),
            )
            self._num_threads = None

    def validation(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        """Write the results of a validation, as `Validator` returns them."""
        self._writer.scalars(step, {f"validation/{name}": value for name, value in scalars.items()})
        self._writer.images(step, {f"validation/{name}": picture for name, picture in pictures.items()})
        formats = {
            "loss": "loss {:.4f}",
            "psnr_one_step": "PSNR {:.2f} dB in one step",
            "ms_ssim_one_step": "MS-SSIM {:.4f}",
            "psnr_sampled": "{:.2f} dB sampled",
            "codebook/perplexity": "perplexity {:.1f}",
            "codebook/usage": "{:.2f} of the codes in use",
            "nominal_bits_per_pixel": "nominal {:.4f} bits per pixel",
            "estimated_bits_per_pixel": "estimated {:.4f} bits per pixel",
        }
        formats.setdefault(self._best_by, f"{self._best_by} {{:.6g}}")
        parts = [text.format(scalars[name]) for name, text in formats.items() if name in scalars]
        _logger.info("validation after step %d: %s", step, ", ".join(parts))


def _advice(num_threads: int, num_workers: int) -> str:
    """Return what makes reading faster."""
    wanted = math.ceil(num_cores() / max(num_workers, 1))
    # A worker process without threads reads by itself.
    if (num_threads or int(num_workers > 0)) < wanted:
        reason = "the number of cores here"
        if num_workers:
            reason = f"for {num_cores()} cores and {num_workers} worker processes"
        return f"set --config.data.num_threads={wanted}, {reason}; it is {num_threads}"
    return (
        f"all {num_cores()} cores read already; make shards with cod prepare, of images just larger than the crops, "
        + ("" if num_workers else "let worker processes read with --config.data.num_workers=N, ")
        + "or give this process more cores"
    )


def average(window: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Return the mean of each metric over the steps with a finite value; counters keep their last value."""
    means = {}
    for name in dict.fromkeys(name for metrics in window for name in metrics):
        values = np.array([metrics[name] for metrics in window if name in metrics], np.float64)
        finite = values[np.isfinite(values)]
        is_last = name in _COUNTERS or name.endswith("learning_rate")
        means[name] = float(values[-1] if is_last or not len(finite) else finite.mean())
    return means


def _scope(name: str) -> str:
    """Return the update of a metric, such as "student/" of "student/loss/l1", or "" with a single update."""
    first, slash, _ = name.partition("/")
    return "" if first in ("loss", "codebook") or not slash else f"{first}/"


def _summary(scope: str, values: Mapping[str, float]) -> str:
    """Return one update's part of the log line: loss, its terms, gradient norm, and use of the codebook."""
    lead = f"{scope}loss/"
    terms = [f"{name.removeprefix(lead)} {value:.4f}" for name, value in values.items() if name.startswith(lead)]
    text = f"{scope.replace('/', ' ')}loss {values[f'{scope}loss']:.4f} ({', '.join(terms)})"
    text += f", gradient_norm {values[f'{scope}gradient_norm']:.3g}"
    if f"{scope}codebook/perplexity" not in values:
        return text
    perplexity, usage = (values[f"{scope}codebook/{name}"] for name in ("perplexity", "usage"))
    return f"{text}, perplexity {perplexity:.1f}, {usage:.2f} of the codes in use"
