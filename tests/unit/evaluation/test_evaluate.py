"""An evaluation in its folder: what goes on, what begins again, and what fails alone."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cod_jax import images
from cod_jax.errors import UserError
from cod_jax.evaluation import evaluate as evaluation
from cod_jax.evaluation import stages
from cod_jax.evaluation.evaluate import evaluate
from cod_jax.evaluation.folders import PLAN_FILE
from cod_jax.evaluation.plan import Request
from cod_jax.evaluation.report.page import write_report
from tests.evaluation_fixtures import in_this_process
from tests.model_fixtures import gradient_image
from tests.unit.evaluation.test_metric_table import LargestError

PICTURE = gradient_image(20, 24)


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "fresh_processes", in_this_process)
    monkeypatch.setattr(evaluation, "draw", lambda found: {})


@pytest.fixture
def theirs(tmp_path: Path) -> Request:
    """A picture, and another codec's results for it."""
    images.save_png(tmp_path / "photos" / "a.png", PICTURE)
    images.save_png(tmp_path / "theirs" / "low" / "a.png", PICTURE // 2)
    return Request(results=[str(tmp_path / "theirs")])


def run(folder: Path, request: Request, **options: Any) -> dict[str, Any]:
    return evaluate(folder / "photos", folder / "result", request, **options)


def psnr_of(found: dict[str, Any]) -> float:
    return found["curves"][0]["points"][0]["mean"]["psnr"]


def test_results_of_another_codec_that_changed_are_another_evaluation(tmp_path: Path, theirs: Request):
    before = run(tmp_path, theirs)
    digest = before["curves"][0]["about"]["files_sha256"]
    assert json.loads((tmp_path / "result" / PLAN_FILE).read_text())["curves"][0]["about"] == {"files_sha256": digest}
    images.save_png(tmp_path / "theirs" / "low" / "a.png", PICTURE ^ np.uint8(1))
    with pytest.raises(UserError, match="holds an evaluation with other curves; choose another output, or pass --forc"):
        run(tmp_path, theirs)
    after = run(tmp_path, theirs, force=True)
    assert psnr_of(after) > psnr_of(before) + 10
    assert after["curves"][0]["about"]["files_sha256"] != digest


def test_only_force_measures_the_same_again(tmp_path: Path, theirs: Request, monkeypatch: pytest.MonkeyPatch):
    run(tmp_path, theirs)
    measured: list[str] = []
    measure = stages.measure

    def counted(work: stages.Work, *arguments: Any) -> dict[str, Any]:
        measured.append(work.stem)
        return measure(work, *arguments)

    monkeypatch.setattr(stages, "measure", counted)
    (tmp_path / "result" / "results.json").unlink()
    run(tmp_path, theirs)
    assert (measured, (tmp_path / "result" / "results.json").exists()) == ([], True)
    run(tmp_path, theirs, force=True)
    assert measured == ["a"]


@pytest.mark.parametrize(("source", "goes_on"), [("results", False), ("baselines", True)])
def test_an_evaluation_of_an_earlier_version_goes_on_or_is_refused(
    tmp_path: Path, theirs: Request, source: str, goes_on: bool
):
    request = theirs if source == "results" else Request(baselines=["jpeg"])
    run(tmp_path, request)
    path = tmp_path / "result" / PLAN_FILE
    plan = json.loads(path.read_text())
    # What such a version wrote.
    for curve in plan["curves"]:
        curve["about"].pop("files_sha256", None)
    assert plan["options"] == {"metrics": ["mse", "psnr", "ms_ssim", "ms_ssim_scales", "wasserstein", "texture"]}
    path.write_text(json.dumps(plan | {"created": "2026-01-02T03:04:05Z"}))
    if goes_on:
        assert run(tmp_path, request)["created"] == "2026-01-02T03:04:05Z"
    else:
        with pytest.raises(UserError, match="with other curves; choose another output, or pass --force to delete it"):
            run(tmp_path, request)


def test_another_class_of_metric_with_the_same_name_is_another_evaluation(
    tmp_path: Path, theirs: Request, monkeypatch: pytest.MonkeyPatch
):
    module = types.ModuleType("metrics_of_two_kinds")
    vars(module).update(One=LargestError, Other=type("Other", (LargestError,), {}))
    monkeypatch.setitem(sys.modules, "metrics_of_two_kinds", module)
    run(tmp_path, theirs._replace(metrics=["metrics_of_two_kinds:One"]))
    with pytest.raises(UserError, match="holds an evaluation with other options"):
        run(tmp_path, theirs._replace(metrics=["metrics_of_two_kinds:Other"]))


def test_a_picture_that_is_too_wide_for_webp_fails_there_alone_and_is_in_the_report(tmp_path: Path):
    images.save_png(tmp_path / "photos" / "wide.png", np.zeros((2, 16384, 3), np.uint8))
    images.save_png(tmp_path / "photos" / "small.png", PICTURE)
    found = run(tmp_path, Request(baselines=["webp"]))
    whole, half, quarter = found["curves"]
    for point in whole["points"]:
        assert point["failed"]["wide.png"].startswith("WebP cannot encode the picture (")
        assert point["mean"]["num_images"] == 1
    assert [point["mean"]["num_images"] for point in (half["points"][0], quarter["points"][0])] == [2, 2]
    assert run(tmp_path, Request(baselines=["webp"]))["curves"][0]["points"][0]["failed"].keys() == {"wide.png"}
    write_report(tmp_path / "result", tmp_path / "photos", tmp_path / "report.html")
    assert ">image/png;base64," in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_models_alone_have_a_peak_of_memory(tmp_path: Path):
    images.save_png(tmp_path / "photos" / "a.png", PICTURE)
    found = run(tmp_path, Request(baselines=["jpeg"]))
    assert "peak_memory_bytes" not in found["curves"][0]["about"]
    assert "peak_memory_bytes" not in (tmp_path / "result" / evaluation.RECORDS_FILE).read_text()
