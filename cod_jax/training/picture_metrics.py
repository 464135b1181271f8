"""Further metrics of a validation, which compare pictures on the host; the trainer is given them."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError


@runtime_checkable
class PictureMetric(Protocol):
    """A metric of `validation.metrics`; `evaluation.metric_table.Metric` is one."""

    name: ClassVar[str]
    higher_is_better: ClassVar[bool | None]

    def measure(self, original: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8], num_bytes: int) -> int | float:
        """Compare a picture [H, W, 3] with its reconstruction."""
        ...

    def average(self, values: Sequence[int | float]) -> int | float | None:
        """Return the value for all pictures."""
        ...


MetricLoader = Callable[[Sequence[str]], Sequence[PictureMetric]]


def no_metrics(names: Sequence[str]) -> Sequence[PictureMetric]:
    """Stand in for a loader of metrics where none may be named.

    Raises:
        UserError: One is.
    """
    if names:
        raise UserError(f"expected no validation.metrics, got {names[0]!r}; start the run with cod train")
    return ()


def name_of(metric: PictureMetric) -> str:
    """Return the name of a metric's number, which says what is better, so that nobody needs its class to rank by it."""
    words = {True: "higher/", False: "lower/", None: ""}
    return f"{words[metric.higher_is_better]}{metric.name}"
