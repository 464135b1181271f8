"""Steps without finite gradients, which are skipped; too many in a row end a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cod_jax.errors import WorkError
from cod_jax.training.objectives.objective import Update


class TrainingError(WorkError):
    """Error that ends a run; the message says why and what to do."""


class SkippedSteps:
    """Watch over the steps that were skipped.

    The state of a run does not change in a skipped step, but it may be useless already: an update that was too large
    leaves parameters with which no further gradient is finite.

    Args:
        updates: Kinds of steps.
        max_in_a_row: Number of skipped steps in a row of one kind that ends the run.
    """

    def __init__(self, updates: Sequence[Update], max_in_a_row: int):
        self._max = max_in_a_row
        self._scoped = len(updates) > 1
        self._row: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._last: tuple[int, Update, Mapping[str, Any]] | None = None

    @property
    def skipping(self) -> bool:
        """Whether the latest step of some kind was skipped, so that the state should not be saved."""
        return any(self._row.values())

    @property
    def last_good(self) -> int:
        """The latest step whose parameters had a finite gradient in the step that followed, while skipping."""
        return min(first for name, first in self._first.items() if self._row[name]) - 2

    def look(self, step: int, update: Update, metrics: Mapping[str, Any]) -> bool:
        """Take note of a step; it waits until the step is done.

        Args:
            step: Its number, from 1; every step has to be given, in order.
            update: Its kind.
            metrics: What it measured.

        Returns:
            Whether the run may go on.
        """
        in_a_row = int(metrics["consecutive_skipped"])
        if in_a_row and not self._row.get(update.name):
            self._first[update.name] = step
        self._row[update.name] = in_a_row
        if in_a_row:
            self._last = step, update, metrics
        return in_a_row < self._max

    def error(self, resumption: str) -> TrainingError:
        """Return the error that ends a run which is skipping steps.

        Args:
            resumption: Where the run can go on.
        """
        assert self._last is not None  # noqa: S101 (nothing was skipped)
        step, update, metrics = self._last
        scope = f"{update.name}/" if self._scoped else ""
        broken = [
            f"{name} is {float(value)}"
            for name, value in metrics.items()
            if name.removeprefix(scope).split("/")[0] in ("loss", "gradient_norm") and not math.isfinite(value)
        ]
        return TrainingError(
            f"stopped at step {step}: {self._row[update.name]} steps in a row had no finite gradients and were skipped "
            f"({', '.join(broken)}); lower {update.settings}.learning_rate, set {update.settings}.gradient_clip, or "
            f"check the images; {resumption}"
        )
