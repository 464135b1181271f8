"""The benchmark's numbers are complete and consistent; how large they are is not tested."""

import json
import statistics
from pathlib import Path

import pytest

from cod_jax import benchmark
from cod_jax.bundle import save_bundle
from cod_jax.models import build_model
from tests.model_fixtures import numpy_params, tiny_model_config

REPOSITORY = Path(__file__).parent.parent.parent
TIMING = {
    "median_seconds",
    "min_seconds",
    "max_seconds",
    "seconds",
    "median_cpu_seconds",
    "first_call_seconds",
    "compile_seconds",
}


@pytest.fixture(autouse=True)
def fast_compilation(monkeypatch):
    """The measuring processes inherit the environment; here only their answers matter, not their speed."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    monkeypatch.chdir(REPOSITORY)


def check_timing(timing, repeats: int):
    assert timing.keys() == TIMING | ({"pixels_per_second"} & timing.keys())
    assert len(timing["seconds"]) == repeats
    assert 0 < timing["min_seconds"] <= timing["median_seconds"] <= timing["max_seconds"]
    assert timing["median_seconds"] == statistics.median(timing["seconds"])
    assert timing["first_call_seconds"] >= timing["compile_seconds"] >= 0


def check_report(report, command: str):
    assert report.keys() == {"benchmark", "system", "load_average", "results"}
    assert report["benchmark"] == command
    assert report["system"].keys() == {"device", "platform", "processor", "cores", "jax", "python"}
    assert report["system"]["platform"] == "cpu"
    assert report["load_average"].keys() == {"before", "after"}
    for result in report["results"]:
        assert result["peak_device_memory_bytes"] is None
        assert result["model"].keys() == {"name", "parameters", "dtype", "config"}
        assert result["model"]["parameters"] > 100_000


def test_codec(tmp_path, capsys):
    config = tiny_model_config()
    model = tmp_path / "model"
    save_bundle(model, config, numpy_params(build_model(config).shapes), training={})
    output = tmp_path / "codec.json"
    arguments = ["codec", "--model", str(model), "--size", "33x16", "--repeats", "3", "--output", str(output)]
    assert benchmark.main(arguments) == 0
    report = json.loads(output.read_text())
    check_report(report, "codec")
    (result,) = report["results"]
    assert (result["width"], result["height"]) == (33, 16)
    for kind in ("encode", "decode"):
        check_timing(result[kind], 3)
        assert result[kind]["pixels_per_second"] == 33 * 16 / result[kind]["median_seconds"]
    peak = result["peak_memory_bytes"]
    assert 10_000_000 < peak["loaded"] <= peak["encoded"] <= peak["decoded"]
    table = capsys.readouterr().out
    assert "33x16" in table
    assert "GB" in table


@pytest.mark.slow
def test_training(tmp_path, capsys):
    small = {
        "codec": {"input_stride": 2, "encoder_width": 8, "latent_channels": 4, "num_groups": 2},
        "denoiser": {"hidden": 8, "hidden_pixel": 4, "num_blocks": 1, "num_pixel_blocks": 1, "bottleneck_width": 8},
    }
    fields = [
        f"--config.model.{part}.{name}={value}" for part, values in small.items() for name, value in values.items()
    ]
    output = tmp_path / "train.json"
    sizes = ["--image-size", "32", "--batch-size", "2", "--repeats", "2"]
    assert benchmark.main(["train", *sizes, *fields, "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    check_report(report, "train")
    (result,) = report["results"]
    check_timing(result["step"], 2)
    assert (result["image_size"], result["batch_size"]) == (32, 2)
    assert {"flow", "reconstruction", "commitment"} <= result["loss_terms"].keys()
    assert result["images_per_second"] == 2 / result["step"]["median_seconds"]
    assert result["compile_seconds"] > 0
    assert result["trace_seconds"] > 0
    assert "flow x 1" in capsys.readouterr().out


def test_the_table_of_training(monkeypatch, tmp_path, capsys):
    seconds = [0.5, 0.4, 0.6]
    step = {"median_seconds": 0.5, "min_seconds": 0.4, "max_seconds": 0.6, "seconds": seconds}
    result = {
        "system": {"device": "cpu", "platform": "cpu", "processor": "P", "cores": 2, "jax": "0", "python": "3"},
        "model": {"name": "configs/tiny.py", "parameters": 1_500_000, "dtype": "float32", "config": {}},
        "image_size": 128,
        "batch_size": 8,
        "loss_terms": {"flow": 1.0, "commitment": 0.25},
        "step": {**step, "median_cpu_seconds": 0.9, "first_call_seconds": 0.5, "compile_seconds": 0.0},
        "images_per_second": 16.0,
        "trace_seconds": 1.0,
        "compile_seconds": 20.0,
        "compile_cpu_seconds": 21.0,
        "peak_memory_bytes": 1_500_000_000,
        "peak_device_memory_bytes": None,
    }
    monkeypatch.setattr(benchmark, "_in_own_process", lambda measure, job: dict(result))
    assert benchmark.main(["train", "--output", str(tmp_path / "a.json")]) == 0
    check_report(json.loads((tmp_path / "a.json").read_text()), "train")
    table = capsys.readouterr().out
    for part in ("1.5M parameters", "flow x 1, commitment x 0.25", "16.00", "500.0 ms (400.0 to 600.0)", "1.50 GB"):
        assert part in table


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "required: command"),
        (["codec", "--size", "768"], 2, "write it as 768x512"),
        (["codec", "--size", "0x512"], 2, "'0' is no positive number"),
        (["codec", "--repeats", "-1"], 2, "'-1' is no positive number"),
        (["codec", "--config.model.codec.pitch=16"], 2, "unknown argument --config.model.codec.pitch=16"),
        (["train", "--confi=x"], 2, "unknown argument --confi=x"),
        (["train", "--config", "missing.py"], 1, "there is no config file missing.py"),
    ],
)
def test_wrong_arguments(arguments, status, message, capsys):
    assert benchmark.main(arguments) == status
    assert message in capsys.readouterr().err


def test_a_model_folder_that_is_missing(tmp_path, capsys):
    assert benchmark.main(["codec", "--model", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err
