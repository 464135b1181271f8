"""The pieces of work on one picture."""

import sys
import types
from pathlib import Path

import pytest

from cod_jax import images
from cod_jax.evaluation import stages
from cod_jax.evaluation.baselines import Baseline
from cod_jax.evaluation.coders import Coder, Model
from cod_jax.evaluation.stages import Work
from tests.model_fixtures import gradient_image
from tests.unit.evaluation.test_metric_table import LargestError


def work_of(tmp_path: Path, coder: Coder) -> Work:
    images.save_png(tmp_path / "a.png", gradient_image(16, 20))
    settings = {"quality": 30, "scale": 1.0}
    return Work(coder, settings, "a", tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "decoded.png", (20, 16))


def test_a_metric_of_another_package_is_made_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[int] = []

    class Slow(LargestError):
        def __init__(self):
            made.append(1)

    module = types.ModuleType("slow_metrics")
    vars(module)["Slow"] = Slow
    monkeypatch.setitem(sys.modules, "slow_metrics", module)
    work = work_of(tmp_path, Baseline("jpeg"))
    coded = stages.encode(work)
    stages.decode(work)
    for _ in range(3):
        assert stages.measure(work, coded["bytes"], ["slow_metrics:Slow"], [])["largest_error"] > 0
    assert made == [1]


def test_the_memory_of_a_process_is_told_of_models_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stages, "peak_memory_bytes", lambda: 77)
    monkeypatch.setattr(Model, "encode", lambda *_: b"a file")
    monkeypatch.setattr(Model, "payload_bytes", lambda *_: None)
    assert "peak_memory_bytes" not in stages.encode(work_of(tmp_path, Baseline("jpeg")))
    model = work_of(tmp_path, Model("folder"))
    assert stages.encode(model)["peak_memory_bytes"] == 77
    monkeypatch.setattr(stages, "peak_memory_bytes", lambda: None)
    assert "peak_memory_bytes" not in stages.encode(model)
