"""The results of a sweep as a table."""

import math
from collections.abc import Sequence
from typing import Any

from cod_jax.launch.plan import Run
from cod_jax.training.ranking import DEFAULT, best_by_of, direction
from cod_jax.training.results import best_result

# Title, names of the result of which the first is shown that a run has, format, and the sign of what is better: -1 is
# less, 0 neither.
_COLUMNS: tuple[tuple[str, tuple[str, ...], str, int], ...] = (
    ("step", ("step",), "{}", 0),
    ("loss", ("loss",), "{:.4f}", -1),
    ("PSNR in one step", ("psnr_one_step",), "{:.2f} dB", 1),
    ("PSNR sampled", ("psnr_sampled",), "{:.2f} dB", 1),
    ("bits per pixel", ("estimated_bits_per_pixel", "nominal_bits_per_pixel"), "{:.4f}", 0),
)
_EXPLANATION = "at the step with {} of each point; * is the best of a column"
_WARNING = "the points have different objectives, so their losses cannot be compared"


def table(runs: Sequence[Run]) -> list[str]:
    """Return the validation results of the points as lines of text, with the best point last; [] without results.

    Args:
        runs: The points.
    """
    results = {run.name: result for run in runs if (result := best_result(run.workdir, best_by_of(run.settings)))}
    if not results:
        return []
    rankings = list(dict.fromkeys(best_by_of(run.settings) for run in runs))
    known = {name for _, names, _, _ in _COLUMNS for name in names}
    further = [(name, (name,), "{:.6g}", direction(name)) for name in rankings if name not in known]
    columns = [
        column
        for column in (*_COLUMNS, *further)
        if any(_value(result, column[1]) is not None for result in results.values())
    ]
    best = {title: _best(results, names, sign) for title, names, _, sign in columns if sign}
    rows = [["point", *(title for title, *_ in columns)]]
    for run in runs:
        result = results.get(run.name, {})
        cells = [run.name]
        for title, names, form, _ in columns:
            value = _value(result, names)
            mark = "*" if best.get(title) == run.name and len(results) > 1 else ""
            cells.append("-" if value is None else form.format(value) + mark)
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    words = ["the lowest validation loss" if name == DEFAULT else f"the best {name}" for name in rankings]
    lines.append(_EXPLANATION.format(" or ".join(words)))
    if len({repr(run.settings["objective"]) for run in runs}) > 1:
        lines.append(_WARNING)
    return lines + [f"best by {title}: {name}" for title, name in best.items() if name]


def _value(result: dict[str, Any], names: Sequence[str]) -> Any:
    """Return the first result with one of these names, or None."""
    return next((result[name] for name in names if name in result), None)


def _best(results: dict[str, dict[str, Any]], names: Sequence[str], sign: int) -> str | None:
    """Return the point with the best finite value."""
    values = {point: _value(result, names) for point, result in results.items()}
    finite = {point: sign * value for point, value in values.items() if value is not None and math.isfinite(value)}
    return max(finite, key=lambda point: finite[point], default=None)
