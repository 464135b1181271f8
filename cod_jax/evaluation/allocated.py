"""Points at a rate of the whole set: each picture has a level of its own, chosen among those that are measured.

Nothing is coded for them. Every level of every picture has its bytes and its squared error in the results already.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cod_jax.codec.allocation import allocate
from cod_jax.errors import UserError, WorkError
from cod_jax.evaluation.metric_table import Metric
from cod_jax.evaluation.results import mean_of

PROTOCOL = (
    "the level of each picture is chosen so that all files together keep within the rate times all pixels, and the "
    "squared error over all pixels is small: along the lower convex hulls of the pictures' levels, then what still fits"
)


def check_set_rates(rates: Sequence[float], *, has_models: bool, qualities: Sequence[int]) -> None:
    """Refuse rates of the set without models, or without all of their levels.

    Raises:
        UserError: With what to change.
    """
    if rates and not has_models:
        raise UserError("expected --model with --set-bpp, which chooses among the levels of a model; name one")
    if rates and qualities:
        raise UserError("expected all quality levels with --set-bpp, which chooses among them; leave out --quality")


def allocated_curve(
    curve: Mapping[str, Any], rates: Sequence[float], num_pixels: Mapping[str, int], table: Sequence[Metric]
) -> dict[str, Any]:
    """Return a curve of a model, whose points are rates of the whole set.

    Args:
        curve: The model over its levels, as in the results.
        rates: Bits per pixel that all files together may have, over all pixels of the set.
        num_pixels: Width times height of each picture, by name.
        table: The metrics.

    Raises:
        WorkError: A rate is below what the smallest files take, or no picture is measured at all levels.
    """
    points = curve["points"]
    rows: dict[str, list[Any]] = {name: [] for name in num_pixels}
    for point in points:
        for row in point["images"]:
            rows[row["name"]].append({**row, "quality": point["settings"]["quality"]})
    whole = {name: found for name, found in rows.items() if len(found) == len(points)}
    failed = {name: reason for point in points for name, reason in point.get("failed", {}).items()}
    if not whole:
        raise WorkError(f"{curve['title']}: no picture is measured at all levels, which --set-bpp needs; leave it out")
    decoding = {name: value for name, value in points[0]["settings"].items() if name != "quality"}
    title = f"{curve['title'].removesuffix(')')}, allocated" + (")" if curve["title"].endswith(")") else "")
    chosen_points = []
    for rate in rates:
        pixels = [num_pixels[name] for name in whole]
        chosen = _choose(list(whole.values()), pixels, rate, curve["title"])
        one = {
            "label": f"{rate:g}",
            "settings": {"set_bpp": rate, **decoding},
            "mean": mean_of(chosen, pixels, table),
            "images": chosen,
        }
        chosen_points.append(one | ({"failed": failed} if failed else {}))
    return {
        "name": f"{curve['name']}-allocated",
        "kind": curve["kind"],
        "title": title,
        "about": {"levels_of": curve["name"], "allocation": PROTOCOL},
        "points": chosen_points,
    }


def _choose(rows: Sequence[Sequence[Any]], num_pixels: Sequence[int], rate: float, title: str) -> list[Any]:
    """Return the row of each picture at its level."""
    total_pixels = sum(num_pixels)
    sizes = [[row["bytes"] for row in levels] for levels in rows]
    least = 8 * sum(map(min, sizes)) / total_pixels
    if 8 * sum(map(min, sizes)) > rate * total_pixels:
        raise WorkError(
            f"expected at least {math.ceil(1e4 * least) / 1e4:.4f} bits per pixel with --set-bpp, which the smallest "
            f"files of {title} take, got {rate:g}; leave that rate out, and the same command goes on"
        )
    errors = [[row["mse"] * number for row in levels] for levels, number in zip(rows, num_pixels, strict=True)]
    levels = allocate(sizes, errors, int(rate * total_pixels / 8))
    return [levels_of[level] for levels_of, level in zip(rows, levels, strict=True)]
