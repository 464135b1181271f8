"""Which pictures the viewer of a report shows, and which file of each baseline stands beside a file of the model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Curve = Mapping[str, Any]

# More pictures than these are sampled evenly from the worst to the best, both included.
MAX_PICTURES = 24
# Rates of one model, and of all models together, at which a picture is shown, and how many pictures these may be.
MAX_RATES, MAX_ROWS, MAX_SHOWN = 4, 8, 12
# A baseline's file may be longer than that of the model by this share, because its sweep has few lengths.
TOLERANCE = 0.1


class Match(NamedTuple):
    """A file beside which another one is shown.

    Attributes:
        curve: Index of its curve in the results.
        point: Index of its point on the curve.
        decoded: Path of the decoded picture below the folder of the evaluation.
        num_bytes: Length of the file; None where there is only the decoded picture.
        quality: Value of the first metric, with the sign that makes larger values better.
    """

    curve: int
    point: int
    decoded: str
    num_bytes: int | None
    quality: float


def families(curves: Sequence[Curve]) -> list[str]:
    """Return the family of each curve: a codec with what it makes of smaller pictures, a model with its allocation."""

    def family(curve: Curve) -> str:
        if isinstance(curve["about"].get("levels_of"), str):
            return curve["about"]["levels_of"]
        is_scaled = curve["about"].get("scale", 1) != 1 and "-" in curve["name"]
        return curve["name"].rpartition("-")[0] if is_scaled else curve["name"]

    return [family(curve) for curve in curves]


def shown_curves(curves: Sequence[Curve]) -> list[int]:
    """Return the indices of the curves that baselines are compared with: models, else folders of files, else all."""
    for kind in ("model", "files"):
        if chosen := [index for index, curve in enumerate(curves) if curve["kind"] == kind and curve["points"]]:
            return chosen
    return [index for index, curve in enumerate(curves) if curve["points"]]


def evenly(count: int, most: int) -> list[int]:
    """Return at most so many of the indices below a count, evenly spread from the first to the last."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count // 2]
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def shown_points(curves: Sequence[Curve]) -> list[list[tuple[int, int]]]:
    """Return the points at which pictures are shown, by model and by rate within a model.

    Returns:
        For each rate the indices of curve and point: one, or those of all ways in which a model decodes the same file.
    """
    models: dict[str, list[int]] = {}
    for index in shown_curves(curves):
        models.setdefault(curves[index]["about"].get("variant_of", curves[index]["name"]), []).append(index)
    shown = list(models.values())[:MAX_ROWS]
    per_model = min(MAX_ROWS // max(1, len(shown)), MAX_SHOWN // max(1, sum(map(len, shown))))
    rows = []
    for variants in shown:
        points = curves[variants[0]]["points"]
        order = sorted(range(len(points)), key=lambda point: points[point]["mean"].get("bpp") or 0.0)
        chosen = [order[place] for place in evenly(len(order), min(MAX_RATES, max(1, per_model)))]
        rows += [[(index, point) for index in variants] for point in chosen]
    return rows


def shown_pictures(results: Mapping[str, Any]) -> list[int]:
    """Return the indices of the pictures to show, in the order of the results."""
    images = results["images"]
    rows = shown_points(results["curves"])
    if len(images) <= MAX_PICTURES or not rows:
        return list(range(len(images)))[:MAX_PICTURES]
    curve, point = rows[len(rows) // 2][0]
    measured = {row["name"]: quality_of(results, row) for row in results["curves"][curve]["points"][point]["images"]}
    order = sorted(range(len(images)), key=lambda index: measured.get(images[index]["name"], -math.inf))
    return sorted(order[place] for place in evenly(len(order), MAX_PICTURES))


def quality_of(results: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Return the value of the first metric of a picture; larger is better, and a lossless picture is best."""
    metric = results["metrics"][0]
    value = row.get(metric["name"])
    if value is None:
        return math.inf if metric["better"] == "higher" else -math.inf
    return value if metric["better"] == "higher" else -value


def matches(results: Mapping[str, Any], name: str) -> list[Match]:
    """Return all decoded files of a picture."""
    return [
        Match(index, place, row["decoded"], row.get("bytes"), quality_of(results, row))
        for index, curve in enumerate(results["curves"])
        for place, point in enumerate(curve["points"])
        for row in point["images"]
        if row["name"] == name and row.get("decoded")
    ]


def matched(num_bytes: int, candidates: Sequence[Match]) -> Match:
    """Return the file of a codec that is compared with one of so many bytes.

    It is the best of those that are at most 10 % longer, whatever their scale. If all are longer, it is the shortest.

    Args:
        num_bytes: Length of the other file.
        candidates: Files of the codec, each with a length; at least one.
    """
    allowed = [one for one in candidates if (one.num_bytes or 0) <= (1 + TOLERANCE) * num_bytes]
    if allowed:
        return max(allowed, key=lambda one: one.quality)
    return min(candidates, key=lambda one: one.num_bytes or 0)


def viewer_rows(results: Mapping[str, Any], name: str) -> list[list[Match]]:
    """Return what the viewer shows of a picture: for each rate those of the model's file, then one of each baseline."""
    curves = results["curves"]
    family_of = families(curves)
    of_picture = matches(results, name)
    by_place = {(one.curve, one.point): one for one in of_picture}
    main = set(shown_curves(curves))
    others: dict[str, list[Match]] = {}
    for one in of_picture:
        if one.curve not in main and one.num_bytes is not None:
            others.setdefault(family_of[one.curve], []).append(one)
    rows = []
    for places in shown_points(curves):
        if ours := [by_place[place] for place in places if place in by_place]:
            size = ours[0].num_bytes
            compared = [] if size is None else [matched(size, files) for files in others.values()]
            rows.append([*ours, *compared])
    return rows
