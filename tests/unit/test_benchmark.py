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
SYSTEM = {"device": "cpu", "platform": "cpu", "processor": "P", "cores": 2, "jax": "0", "python": "3"}
PARTS = ("encode", "decode")


@pytest.fixture(autouse=True)
def fast_compilation(monkeypatch):
    """The measuring processes inherit the environment; here only their answers matter, not their speed."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    monkeypatch.chdir(REPOSITORY)


def check_timing(timing, repeats: int):
    assert timing.keys() >= TIMING
    assert len(timing["seconds"]) == repeats
    assert 0 < timing["min_seconds"] <= timing["median_seconds"] <= timing["max_seconds"]
    assert timing["median_seconds"] == statistics.median(timing["seconds"])
    assert timing["first_call_seconds"] >= timing["compile_seconds"] >= 0


def check_report(report, command: str):
    assert report.keys() >= {"benchmark", "system", "model", "load_average", "results"}
    assert report["benchmark"] == command
    assert report["system"].keys() == {"device", "platform", "processor", "cores", "jax", "python"}
    assert report["system"]["platform"] == "cpu"
    assert report["load_average"].keys() == {"before", "after"}
    assert report["model"].keys() == {"name", "parameters", "dtype", "config"}
    assert report["model"]["parameters"] > 100_000


@pytest.mark.slow
def test_codec(tmp_path, capsys):
    config = tiny_model_config()
    model = tmp_path / "model"
    save_bundle(model, config, numpy_params(build_model(config).shapes), training={})
    output = tmp_path / "codec.json"
    arguments = ["codec", "--model", str(model), "--size", "33x16", "--repeats", "3", "--output", str(output)]
    assert benchmark.main(arguments) == 0
    report = json.loads(output.read_text())
    check_report(report, "codec")
    assert report["model"]["dtype"] == "float32"
    assert report["peak_flops_per_second"] is None
    (result,) = report["results"]
    assert (result["width"], result["height"]) == (33, 16)
    for part in PARTS:
        timings = result[part]
        assert timings["flops"] > 1e5
        for codec in ("plain", "compiled"):
            check_timing(timings[codec], 3)
            assert timings[codec]["pixels_per_second"] == 33 * 16 / timings[codec]["median_seconds"]
            assert timings[codec]["flops_per_second"] == timings["flops"] / timings[codec]["median_seconds"]
            assert timings[codec]["share_of_peak"] is None
        assert timings["ratio"] == timings["plain"]["median_seconds"] / timings["compiled"]["median_seconds"]
    for codec in ("plain", "compiled"):
        start = result["start"][codec]
        for name in ("cold_seconds", "warm_seconds", "cold_cpu_seconds", "warm_cpu_seconds"):
            assert start[name] > 0
        assert 10_000_000 < start["peak_memory_bytes"]["encoded"] <= start["peak_memory_bytes"]["decoded"]
        assert start["peak_device_memory_bytes"] is None
    # Without Flax.
    plain, compiled = (result["start"][codec]["peak_memory_bytes"]["decoded"] for codec in ("plain", "compiled"))
    assert compiled < plain
    table = capsys.readouterr().out
    for part in ("33x16 encode plain", "33x16 decode compiled", "33x16 encode ratio", "start  compiled cold", "GB"):
        assert part in table


def test_a_share_of_the_peak_where_it_is_known(monkeypatch, tmp_path, capsys):
    timing = dict.fromkeys(("median_seconds", "min_seconds", "max_seconds", "median_cpu_seconds"), 0.004)
    timing |= {"pixels_per_second": 1e6, "compile_seconds": 1.0}
    calls = {part: {codec: dict(timing) for codec in ("plain", "compiled")} | {"ratio": 1.0} for part in PARTS}
    answers = {
        "prepare": {
            "system": SYSTEM,
            "model": {"name": "lite", "parameters": 98_800_000, "dtype": "bfloat16", "config": {}},
            "peak_flops_per_second": 1e15,
            "flops": [{"width": 768, "height": 512, "encode": 2 * 10**12, "decode": 10**12}],
        },
        "measure_calls": {"width": 768, "height": 512, **calls},
    }
    start = {"cold_seconds": 3.0, "warm_seconds": 2.0, "cold_cpu_seconds": 5.0, "warm_cpu_seconds": 4.0}
    start |= {"peak_memory_bytes": {"encoded": 1, "decoded": 10**9}}
    monkeypatch.setattr(benchmark, "_in_own_process", lambda measure, job: answers[measure.__name__])
    monkeypatch.setattr(benchmark, "measure_start", lambda *_: {**start, "peak_device_memory_bytes": 5 * 10**9})
    assert benchmark.main(["codec", "--size", "768x512", "--output", str(tmp_path / "a.json")]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["results"][0]["encode"]["plain"]["share_of_peak"] == pytest.approx(0.5)
    table = capsys.readouterr().out
    for part in (
        "50.0 %",
        "25.0 %",
        "500000.0",
        "cold 3.0 s (CPU time 5.0 s), warm 2.0 s (4.0 s)",
        "1.00 GB decoded, of the device 5.00 GB",
    ):
        assert part in table


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
    assert result["update"] == "model"
    assert (result["image_size"], result["batch_size"]) == (32, 2)
    assert {"flow", "reconstruction", "commitment"} <= set(result["loss_terms"])
    assert result["images_per_second"] == 2 / result["step"]["median_seconds"]
    assert result["compile_seconds"] > 0
    assert "step of model" in capsys.readouterr().out


def test_the_table_of_training(monkeypatch, tmp_path, capsys):
    seconds = [0.5, 0.4, 0.6]
    step = {"median_seconds": 0.5, "min_seconds": 0.4, "max_seconds": 0.6, "seconds": seconds}
    result = {
        "update": "student",
        "image_size": 128,
        "batch_size": 8,
        "loss_terms": ["commitment", "flow"],
        "step": {**step, "median_cpu_seconds": 0.9, "first_call_seconds": 0.5, "compile_seconds": 0.0},
        "images_per_second": 16.0,
        "compile_seconds": 20.0,
        "compile_cpu_seconds": 21.0,
        "peak_memory_bytes": 1_500_000_000,
        "peak_device_memory_bytes": None,
    }
    measured = {
        "system": SYSTEM,
        "model": {"name": "configs/tiny.py", "parameters": 1_500_000, "dtype": "float32", "config": {}},
        "results": [result],
    }
    monkeypatch.setattr(benchmark, "_in_own_process", lambda measure, job: measured)
    assert benchmark.main(["train", "--output", str(tmp_path / "a.json")]) == 0
    check_report(json.loads((tmp_path / "a.json").read_text()), "train")
    table = capsys.readouterr().out
    for part in ("1.5M parameters", "step of student", "commitment, flow", "16.00", "500.0 ms (400.0 to 600.0)"):
        assert part in table
    assert "1.50 GB" in table


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
