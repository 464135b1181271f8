"""One table of the metrics of decoded pictures; columns, averages and printed figures follow from it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.evaluation import metrics
from cod_jax.losses.similarity import SCALE_WEIGHTS, num_ms_ssim_scales

Picture = npt.NDArray[np.uint8]
Measure = Callable[[Picture, Picture, int], float]


def mean(values: Sequence[float]) -> float:
    """Return the mean of the values."""
    return math.fsum(values) / len(values)


def mean_of_finite(values: Sequence[float]) -> float:
    """Return the mean of the finite values, or infinity where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return mean(finite) if finite else math.inf


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number that is measured on every picture.

    Attributes:
        name: Its column and its key in the summary.
        unit: Its unit, "" without one.
        description: What it says, one sentence for the documentation.
        measure: Function of the original uint8 [H, W, 3], the decoded picture of the same shape, and the length of the
            compressed file in bytes.
        shown: Format of a printed value, for example "PSNR {:.2f} dB".
        higher_is_better: The direction of better values, None where a value is neither.
        average: Function of the values of all pictures that gives the summary's value, None where an average says
            nothing.
        counts: Names of further numbers of the summary, each with the condition under which a picture is counted.
    """

    name: str
    unit: str
    shown: str
    description: str
    measure: Measure
    higher_is_better: bool | None = None
    average: Callable[[Sequence[float]], float] | None = mean
    counts: Mapping[str, Callable[[float], bool]] = dataclasses.field(default_factory=dict)


FILE_BYTES = Metric(
    name="file_bytes",
    unit="bytes",
    shown="{:d} bytes",
    description="Length of the compressed file.",
    measure=lambda original, decoded, num_bytes: num_bytes,
    higher_is_better=False,
    average=None,
)
BITS_PER_PIXEL = Metric(
    name="bits_per_pixel",
    unit="bits per pixel",
    shown="{:.4g} bits per pixel",
    description="8 times the length of the file over the number of pixels.",
    measure=lambda original, decoded, num_bytes: 8 * num_bytes / (original.shape[0] * original.shape[1]),
    higher_is_better=False,
)
PSNR = Metric(
    name="psnr",
    unit="dB",
    shown="PSNR {:.2f} dB",
    description="Peak signal-to-noise ratio over all pixels and channels. The mean leaves out pictures that came back "
    "without any error, whose PSNR is infinite.",
    measure=lambda original, decoded, num_bytes: metrics.psnr(original, decoded),
    higher_is_better=True,
    average=mean_of_finite,
    counts={"num_lossless": math.isinf},
)
MS_SSIM = Metric(
    name="ms_ssim",
    unit="",
    shown="MS-SSIM {:.4f}",
    description="Multi-scale structural similarity, from 0 to 1.",
    measure=lambda original, decoded, num_bytes: metrics.ms_ssim(original, decoded),
    higher_is_better=True,
)
MS_SSIM_SCALES = Metric(
    name="ms_ssim_scales",
    unit="",
    shown="MS-SSIM at {:d} scales",
    description="Scales at which MS-SSIM was measured: 5, or fewer where a side is below 161 pixels. Values at fewer "
    "scales are not comparable with the usual ones.",
    measure=lambda original, decoded, num_bytes: num_ms_ssim_scales(*original.shape[:2]),
    average=None,
    counts={"num_with_fewer_ms_ssim_scales": lambda scales: scales < len(SCALE_WEIGHTS)},
)
METRICS = (FILE_BYTES, BITS_PER_PIXEL, PSNR, MS_SSIM, MS_SSIM_SCALES)
"""The metrics of `evaluate`, in the order of its columns."""


def measure(
    original: Picture, decoded: Picture, num_bytes: int, metrics: Sequence[Metric] = METRICS
) -> dict[str, float]:
    """Measure one picture.

    Args:
        original: The picture [H, W, 3].
        decoded: What came back, of the same shape.
        num_bytes: Length of the compressed file.
        metrics: What to measure.

    Returns:
        A value per metric, by name.

    Raises:
        UserError: The shapes differ.
    """
    return {metric.name: metric.measure(original, decoded, num_bytes) for metric in metrics}


def summarize(rows: Sequence[Mapping[str, Any]], metrics: Sequence[Metric] = METRICS) -> dict[str, float]:
    """Average over pictures, and count them.

    Args:
        rows: At least one picture's values, see `measure`; other keys are ignored.
        metrics: What was measured.

    Returns:
        The average of each metric that has one, then the counts, by name.
    """
    columns = {metric.name: [row[metric.name] for row in rows] for metric in metrics}
    averages = {metric.name: metric.average(columns[metric.name]) for metric in metrics if metric.average}
    counts = {
        name: sum(map(condition, columns[metric.name])) for metric in metrics for name, condition in metric.counts.items()
    }
    return averages | counts


def sentence(summary: Mapping[str, Any], metrics: Sequence[Metric] = METRICS) -> str:
    """Return the averages as text, for example "0.05 bits per pixel, PSNR 31.20 dB, MS-SSIM 0.9712"."""
    return ", ".join(metric.shown.format(summary[metric.name]) for metric in metrics if metric.average)


def markdown_table(metrics: Sequence[Metric] = METRICS) -> str:
    """Return the table of the documentation: column, unit, better direction and meaning of each metric."""
    better = {True: "higher", False: "lower", None: ""}
    rows = [("column", "unit", "better", "meaning"), ("---",) * 4] + [
        (f"`{metric.name}`", metric.unit, better[metric.higher_is_better], metric.description) for metric in metrics
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
