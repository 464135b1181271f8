"""One table of the metrics of decoded pictures; columns, averages and printed figures follow from it.

A metric of another package is a class that inherits from `Metric`, named "my_package.metrics:MyMetric".
"""

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from cod_jax import plugins
from cod_jax.errors import UserError
from cod_jax.evaluation import metrics, wasserstein
from cod_jax.losses.similarity import SCALE_WEIGHTS, num_ms_ssim_scales

Picture = npt.NDArray[np.uint8]
Number = int | float
Value = TypeVar("Value")

# Difference of neighbouring pixels, below that of any photograph.
_FLAT = 0.01


class Described:
    """A number in the results, of a picture or of a set of pictures; `Metric` says what its attributes are."""

    name: ClassVar[str]
    title: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    shown: ClassVar[str] = ""
    description: ClassVar[str] = ""
    higher_is_better: ClassVar[bool | None] = None
    weights_sha256: str | None = None


class LastKept(Generic[Value]):
    """A function of a picture that keeps its last value: one original is compared with many decoded pictures.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable[[Picture], Value]):
        self._function = function
        self._last: tuple[Picture, Value] | None = None

    def __call__(self, picture: Picture) -> Value:
        """Return the value of a picture."""
        # Values are compared, because an array may have been changed in place.
        if self._last is None or not np.array_equal(self._last[0], picture):
            self._last = picture.copy(), self._function(picture)
        return self._last[1]


class Metric(Described, abc.ABC):
    """One number that is measured on every picture.

    Attributes:
        name: Its column in the tables and its key in results.json.
        title: Its name for people.
        unit: Its unit, "" without one.
        shown: Format of a printed value, for example "PSNR {:.2f} dB"; "" for a column that is not compared by itself.
        description: How it is computed, for the documentation and for whoever reads results.
        weights_sha256: Of the files of weights that it needs, None without.
        higher_is_better: Direction of better values, None where a value is neither better nor worse.
    """

    @abc.abstractmethod
    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Measure one picture.

        Args:
            original: The picture [H, W, 3].
            decoded: The picture that was decoded from the file, of the same shape.
            num_bytes: Length of the compressed file.
        """

    def average(self, values: Sequence[Number]) -> Number | None:
        """Return the summary's value for all pictures: the mean, unless overridden; None leaves it out."""
        return math.fsum(values) / len(values)

    def counts(self, values: Sequence[Number]) -> dict[str, int]:
        """Return further numbers of the summary, for example how many pictures are special."""
        return {}


class SquaredError(Metric):
    """Mean squared error, from which the PSNR of the pooled error is computed."""

    name = "mse"
    title = "mean squared error"
    description = "Mean squared error over all pixels and channels, of values from 0 to 255."
    higher_is_better = False

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return the mean of the squared differences."""
        return metrics.mean_squared_error(original, decoded)


class Psnr(Metric):
    """Peak signal-to-noise ratio."""

    name = "psnr"
    title = "PSNR"
    unit = "dB"
    shown = "PSNR {:.2f} dB"
    description = (
        "Peak signal-to-noise ratio over all pixels and channels. The mean over pictures leaves out those that came "
        "back without any error, whose PSNR is infinite."
    )
    higher_is_better = True

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return the PSNR, infinity for equal pictures."""
        return metrics.psnr(original, decoded)

    def average(self, values: Sequence[Number]) -> Number | None:
        """Return the mean of the finite values; infinity where there are none."""
        finite = [value for value in values if math.isfinite(value)]
        return super().average(finite) if finite else math.inf

    def counts(self, values: Sequence[Number]) -> dict[str, int]:
        """Count the pictures that came back without any error."""
        return {"num_lossless": sum(map(math.isinf, values))}


class MsSsim(Metric):
    """Multi-scale structural similarity."""

    name = "ms_ssim"
    title = "MS-SSIM"
    shown = "MS-SSIM {:.4f}"
    description = "Multi-scale structural similarity, from 0 to 1, as pytorch-msssim computes it."
    higher_is_better = True

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return MS-SSIM."""
        return metrics.ms_ssim(original, decoded)


class MsSsimScales(Metric):
    """Number of scales of MS-SSIM."""

    name = "ms_ssim_scales"
    title = "scales of MS-SSIM"
    description = (
        "Scales at which MS-SSIM was measured: 5, or fewer where a side is below 161 pixels. Values at fewer scales "
        "are not comparable with the usual ones."
    )

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return the number of scales that fit into the picture."""
        return num_ms_ssim_scales(*original.shape[:2])

    def average(self, values: Sequence[Number]) -> Number | None:
        """Return None: the mean of these numbers says nothing."""
        return None

    def counts(self, values: Sequence[Number]) -> dict[str, int]:
        """Count the small pictures."""
        return {"num_with_fewer_ms_ssim_scales": sum(value < len(SCALE_WEIGHTS) for value in values)}


class Wasserstein(Metric):
    """Wasserstein distortion on features that need no weights."""

    name = "wasserstein"
    title = "Wasserstein distortion"
    unit = "squared 8-bit values"
    shown = "Wasserstein {:.4g}"
    description = (
        "Wasserstein distortion (Qiu et al. 2023) of colours and of a steerable pyramid of four scales and four "
        "directions, in windows with a standard deviation of 6.5 pixels."
    )
    higher_is_better = False

    def __init__(self):
        self._of_original = LastKept(wasserstein.window_statistics)

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return the distortion."""
        return wasserstein.distance(self._of_original(original), wasserstein.window_statistics(decoded))


class Texture(Metric):
    """How much texture is left."""

    name = "texture"
    title = "texture"
    description = (
        "Mean absolute difference of neighbouring pixels, over that of the original: 1 is as much texture, and less is "
        "blurred. Both have 0.01 added, so that two flat pictures have 1."
    )

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return the share of the original's texture."""
        return (metrics.texture(decoded) + _FLAT) / (metrics.texture(original) + _FLAT)


METRICS: tuple[Metric, ...] = (SquaredError(), Psnr(), MsSsim(), MsSsimScales(), Wasserstein(), Texture())
"""The metrics that are always measured on each picture, in the order of the columns."""


def with_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Return `METRICS` and metrics of other packages.

    Args:
        names: Their classes, see `named_metrics`.

    Raises:
        UserError: A class cannot be found, is not a metric, or has the name of another metric.
    """
    return named_metrics(names, METRICS)


def named_metrics(names: Sequence[str], table: tuple[Metric, ...] = ()) -> tuple[Metric, ...]:
    """Return a table of metrics with more of them.

    Args:
        names: Classes that inherit from `Metric`, such as "my_package.metrics:MyMetric". Their modules are imported,
            and the classes are called without arguments.
        table: What there is already.

    Raises:
        UserError: A class cannot be found, is not a metric, or has the name of another metric.
    """
    for name in names:
        kind: Any = plugins.resolve(name, Metric, trusted=True)
        added: Metric = kind()
        if added.name in {metric.name for metric in table}:
            raise UserError(f"expected metrics with different names, got {added.name} twice; rename that of {name}")
        table = (*table, added)
    return table


def measure(
    original: Picture, decoded: Picture, num_bytes: int, table: Sequence[Metric] = METRICS
) -> dict[str, Number]:
    """Measure one picture.

    Args:
        original: The picture [H, W, 3].
        decoded: The picture that was decoded from the file, of the same shape.
        num_bytes: Length of the compressed file.
        table: The metrics.

    Returns:
        A value per metric, by name.

    Raises:
        UserError: The shapes differ.
    """
    return {metric.name: _number(metric.measure(original, decoded, num_bytes)) for metric in table}


def summarize(rows: Sequence[Mapping[str, Any]], table: Sequence[Metric] = METRICS) -> dict[str, Number]:
    """Average over pictures, and count them.

    Args:
        rows: Values of at least one picture, see `measure`; other keys are ignored.
        table: The metrics.

    Returns:
        The average of each metric that has one, then all counts, by name.
    """
    columns = {metric: [row[metric.name] for row in rows] for metric in table}
    averages = {metric.name: metric.average(values) for metric, values in columns.items()}
    counts = [metric.counts(values) for metric, values in columns.items()]
    summary = {name: _number(average) for name, average in averages.items() if average is not None}
    return summary | {name: number for of_metric in counts for name, number in of_metric.items()}


def sentence(summary: Mapping[str, Any], table: Sequence[Described] = METRICS) -> str:
    """Return the averages as text, for example "PSNR 31.20 dB, MS-SSIM 0.9712"."""
    shown = (metric for metric in table if metric.shown and metric.name in summary)
    return ", ".join(metric.shown.format(summary[metric.name]) for metric in shown)


def markdown_table(table: Sequence[Metric] = METRICS) -> str:
    """Return the table of the documentation: column, unit, better direction and meaning of each metric."""
    better = {True: "higher", False: "lower", None: ""}
    rows = [("Column", "Unit", "Better", "Meaning"), ("---",) * 4] + [
        (f"`{metric.name}`", metric.unit, better[metric.higher_is_better], metric.description) for metric in table
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(value: Any) -> Number:
    """Return a value, which may be an array of size one, as a number that JSON takes."""
    return np.asarray(value).item()
