import json
import math
import sys
import types

import numpy as np
import pytest

from cod_jax.evaluation import metrics
from cod_jax.evaluation.metric_table import (
    METRICS,
    LastKept,
    Metric,
    Wasserstein,
    markdown_table,
    measure,
    sentence,
    summarize,
    with_metrics,
)
from cod_jax.evaluation.wasserstein import wasserstein_distortion


class LargestError(Metric):
    name = "largest_error"
    shown = "largest error {:.0f}"
    description = "Largest difference of a value."
    higher_is_better = False

    def measure(self, original, decoded, num_bytes):
        return np.abs(original.astype(np.float32) - decoded).max()

    def average(self, values):
        return max(values)


def pair(height: int, width: int, error: int) -> tuple[np.ndarray, np.ndarray]:
    original = np.random.default_rng(height * width).integers(20, 200, (height, width, 3), np.uint8)
    return original, original + np.uint8(error)


def test_a_picture_has_a_value_for_each_metric():
    original, decoded = pair(40, 30, 5)
    assert measure(original, decoded, 75) == {
        "mse": 25.0,
        "psnr": metrics.psnr(original, decoded),
        "ms_ssim": metrics.ms_ssim(original, decoded),
        "ms_ssim_scales": 2,
        "wasserstein": wasserstein_distortion(original, decoded),
        "texture": 1.0,
    }


def test_texture_is_the_share_that_is_left():
    original = np.random.default_rng(0).integers(0, 200, (20, 30, 3), np.uint8)
    flat = np.full_like(original, 7)
    texture = next(metric for metric in METRICS if metric.name == "texture")
    assert texture.measure(original, original // 2, 0) == pytest.approx(0.5, abs=0.01)
    assert texture.measure(original, flat, 0) < 1e-3
    assert texture.measure(flat, flat, 0) == 1
    assert texture.measure(flat[:1, :1], flat[:1, :1], 0) == 1
    assert metrics.texture(np.array([[[0], [10]], [[4], [10]]], np.uint8)) == pytest.approx((8 + 2) / 2)


def test_the_summary_averages_and_counts():
    rows = [measure(*pair(16, 16, 5), 64), measure(*pair(170, 161, 10), 10), measure(*pair(16, 16, 0), 32)]
    summary = summarize([{"name": "a.png", **row} for row in rows])
    counts = ["num_lossless", "num_with_fewer_ms_ssim_scales"]
    assert list(summary) == ["mse", "psnr", "ms_ssim", "wasserstein", "texture", *counts]
    for name in ("mse", "ms_ssim"):
        assert summary[name] == pytest.approx(sum(row[name] for row in rows) / 3)
    # The infinite PSNR of equal pictures says nothing about the others.
    assert summary["psnr"] == pytest.approx((rows[0]["psnr"] + rows[1]["psnr"]) / 2)
    assert (summary["num_lossless"], summary["num_with_fewer_ms_ssim_scales"]) == (1, 2)
    assert summarize(rows[2:])["psnr"] == math.inf


def test_the_sentence_holds_the_averages():
    summary = {"mse": 49.3, "psnr": 31.204, "ms_ssim": 0.97117, "num_lossless": 1}
    assert sentence(summary) == "PSNR 31.20 dB, MS-SSIM 0.9712"


def test_a_metric_of_another_package_is_named_by_its_class(monkeypatch):
    module = types.ModuleType("my_metrics")
    vars(module).update(LargestError=LargestError, Twice=type("Twice", (LargestError,), {"name": "psnr"}))
    monkeypatch.setitem(sys.modules, "my_metrics", module)
    table = with_metrics(["my_metrics:LargestError"])
    assert table[:-1] == METRICS
    rows = [measure(*pair(16, 16, error), 64, table) for error in (5, 9)]
    assert [row["largest_error"] for row in rows] == [5, 9]
    summary = summarize(rows, table)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["largest_error"] == 9
    assert sentence(summary, table).endswith(", largest error 9")
    assert "| `largest_error` |  | lower | Largest difference of a value. |" in markdown_table(table)
    with pytest.raises(ValueError, match="got psnr twice; rename that of my_metrics:Twice"):
        with_metrics(["my_metrics:Twice"])


def test_every_metric_says_what_it_is():
    for metric in METRICS:
        assert metric.description.endswith(".")
        assert not metric.shown or metric.title
    assert markdown_table().count("\n") == 1 + len(METRICS)


def test_wasserstein_sees_that_an_original_was_changed_in_place():
    original, decoded = pair(24, 20, 5)
    metric = Wasserstein()
    before = metric.measure(original, decoded, 0)
    assert metric.measure(original, decoded, 0) == before
    original[:] = decoded
    assert metric.measure(original, decoded, 0) == 0


def test_the_last_value_is_kept_until_the_picture_is_another_one():
    calls: list[int] = []
    mean_of = LastKept(lambda picture: calls.append(1) or float(picture.mean()))
    picture = np.full((2, 2, 3), 7, np.uint8)
    assert [mean_of(picture), mean_of(picture.copy())] == [7, 7]
    assert len(calls) == 1
    picture[:] = 9
    assert mean_of(picture) == 9
    assert mean_of(picture[:1]) == 9
    assert len(calls) == 3
