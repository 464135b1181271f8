"""Rates of a whole set, from levels that are measured."""

from typing import Any

import pytest

from cod_jax.errors import UserError, WorkError
from cod_jax.evaluation.allocated import allocated_curve, check_set_rates
from cod_jax.evaluation.metric_table import Metric, SquaredError
from cod_jax.evaluation.report.choice import families

TABLE: tuple[Metric, ...] = (SquaredError(),)
PIXELS = {"a.png": 1000, "b.png": 3000}


def row(name: str, num_bytes: int, mse: float) -> dict[str, Any]:
    return {"name": name, "bytes": num_bytes, "bpp": 8 * num_bytes / PIXELS[name], "mse": mse, "file": f"{name}.cod"}


def curve(**failed: str) -> dict[str, Any]:
    """A model with two levels; the second picture has the larger error, and more pixels."""
    levels = {1: [(10, 40.0), (20, 50.0)], 2: [(20, 20.0), (40, 20.0)]}
    points: list[dict[str, Any]] = [
        {
            "label": str(quality),
            "settings": {"quality": quality, "steps": 1},
            "images": [row(name, *values) for name, values in zip(PIXELS, found, strict=True)],
        }
        for quality, found in levels.items()
    ]
    for name, reason in failed.items():
        points[1]["images"] = [one for one in points[1]["images"] if one["name"] != f"{name}.png"]
        points[1]["failed"] = {f"{name}.png": reason}
    return {"name": "m", "kind": "model", "title": "m (1 step)", "about": {"card": "long"}, "points": points}


def test_each_picture_gets_the_level_that_serves_the_set():
    found = allocated_curve(curve(), [0.06, 0.1, 9.0], PIXELS, TABLE)
    assert (found["name"], found["title"], found["kind"]) == ("m-allocated", "m (1 step, allocated)", "model")
    assert found["about"]["levels_of"] == "m"
    low, middle, high = found["points"]
    assert (middle["label"], middle["settings"]) == ("0.1", {"set_bpp": 0.1, "steps": 1})
    assert [[one["quality"] for one in point["images"]] for point in (low, middle, high)] == [[1, 1], [1, 2], [2, 2]]
    mean = middle["mean"]
    assert mean["bpp_pooled"] == 8 * 50 / 4000 <= 0.1
    assert mean["mse"] == 30
    assert middle["images"][1]["file"] == "b.png.cod"
    assert families([curve(), found]) == ["m", "m"]


def test_a_picture_that_failed_at_one_level_is_left_out():
    (point,) = allocated_curve(curve(b="broken"), [0.1], PIXELS, TABLE)["points"]
    assert [one["name"] for one in point["images"]] == ["a.png"]
    assert point["failed"] == {"b.png": "broken"}
    with pytest.raises(WorkError, match="no picture is measured at all levels"):
        allocated_curve(curve(a="broken", b="broken"), [0.1], {"b.png": 1, "a.png": 2}, TABLE)


def test_a_rate_that_cannot_be_reached_is_refused_with_the_least_one():
    with pytest.raises(WorkError, match=r"at least 0.0600 bits per pixel with --set-bpp, which .* m .1 step. take"):
        allocated_curve(curve(), [0.0599], PIXELS, TABLE)


def test_levels_to_choose_among_are_needed():
    check_set_rates([], has_models=False, qualities=[3])
    check_set_rates([0.1], has_models=True, qualities=[])
    with pytest.raises(UserError, match="expected --model with --set-bpp"):
        check_set_rates([0.1], has_models=False, qualities=[])
    with pytest.raises(UserError, match="leave out --quality"):
        check_set_rates([0.1], has_models=True, qualities=[1])
