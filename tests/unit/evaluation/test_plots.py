"""Plots of results."""

import math
from typing import Any

import pytest

from cod_jax.evaluation.plots import draw

METRICS = [
    {"name": "psnr", "title": "PSNR", "unit": "dB", "better": "higher"},
    {"name": "wasserstein", "title": "Wasserstein distortion", "unit": "", "better": "lower"},
]
LOSSLESS = {"bpp": 3.0, "psnr": math.inf, "wasserstein": 0.0}


def results(*means: dict[str, float]) -> dict[str, Any]:
    points = [{"label": str(index), "mean": mean} for index, mean in enumerate(means)]
    return {"metrics": METRICS, "curves": [{"name": "a", "kind": "files", "title": "A codec", "points": points}]}


# Warnings of matplotlib are errors here.
@pytest.mark.parametrize("means", [[LOSSLESS], [{"psnr": 30.0, "wasserstein": 5.0}], []])
def test_what_has_no_place_on_an_axis_is_left_out(means: list[dict[str, float]]):
    plots = draw(results(*means))
    assert sorted(plots) == ["distortion_perception.svg", "rate_psnr.svg", "rate_wasserstein.svg"]
    assert all(b"</svg>" in plot for plot in plots.values())
    assert b"A codec" not in plots["rate_psnr.svg"]


def test_the_other_rates_of_a_lossless_curve_are_drawn():
    plots = draw(results({"bpp": 0.1, "psnr": 30.0, "wasserstein": 5.0}, LOSSLESS))
    assert all(b"A codec" in plot for plot in plots.values())
