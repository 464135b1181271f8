"""The benchmark's numbers are complete and consistent; how large they are is not tested."""

import json
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.benchmarks import ceilings
from cod_jax.benchmarks.codec import memory_per_megapixel
from cod_jax.benchmarks.training import measure_training, random_params
from cod_jax.commands.main import main
from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import build_model
from tests.model_fixtures import numpy_params, tiny_compact_config, tiny_model_config

REPOSITORY = Path(__file__).parent.parent.parent
TIMING = {
    "median_seconds",
    "min_seconds",
    "max_seconds",
    "seconds",
    "median_cpu_seconds",
    "first_call_seconds",
}
SYSTEM = {"device": "cpu", "platform": "cpu", "processor": "P", "cores": 2, "jax": "0", "python": "3"}
PARTS = ("encode", "decode")
CALLS = ("plain", "compiled", "on_device")
TRAINED_MODEL = {"name": "configs/tiny.py", "parameters": 1_500_000, "dtype": "float32", "config": {}}
TRAINING_RESULT = {
    "image_size": 128,
    "batch_size": 8,
    "loss_terms": ["commitment", "flow"],
    "step": {
        "median_seconds": 0.5,
        "min_seconds": 0.4,
        "max_seconds": 0.6,
        "seconds": [0.5, 0.4, 0.6],
        "median_cpu_seconds": 0.9,
        "first_call_seconds": 0.5,
    },
    "ceilings": {"flops_per_second": 8e10, "bytes_per_second": 1e10},
    "roofline": ceilings.compared(0.5, 2e10, 1e9, {"flops_per_second": 8e10, "bytes_per_second": 1e10}),
    "share_of_peak": None,
    "images_per_second": 16.0,
    "compile_seconds": 20.0,
    "compile_cpu_seconds": 21.0,
    "peak_memory_bytes": 1_500_000_000,
    "peak_device_memory_bytes": None,
}


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
    assert timing["first_call_seconds"] > 0


def check_report(report, command: str):
    assert report.keys() >= {"benchmark", "system", "model", "load_average", "results"}
    assert report["benchmark"] == command
    assert report["system"].keys() == {"device", "platform", "processor", "cores", "jax", "python"}
    assert report["system"]["platform"] == "cpu"
    assert report["load_average"].keys() == {"before", "after"}
    assert report["model"].keys() == {"name", "parameters", "dtype", "config"}
    assert report["model"]["parameters"] > 50_000


@pytest.mark.slow
@pytest.mark.parametrize("config", [tiny_model_config(), tiny_compact_config()], ids=["cod", "compact"])
def test_codec(config, tmp_path, capsys):
    model = tmp_path / "model"
    save_bundle(model, config, numpy_params(build_model(config).shapes), training={})
    output = tmp_path / "codec.json"
    arguments = ["codec", "--model", str(model), "--size", "33x16", "--repeats", "3", "--output", str(output)]
    assert main(["benchmark", *arguments]) == 0
    report = json.loads(output.read_text())
    check_report(report, "codec")
    assert report["model"]["dtype"] == "float32"
    assert report["peak_flops_per_second"] is None
    (result,) = report["results"]
    assert (result["width"], result["height"]) == (33, 16)
    for part in PARTS:
        timings = result[part]
        assert timings["flops"] > 1e5
        for call in CALLS:
            check_timing(timings[call], 3)
            assert timings[call]["pixels_per_second"] == 33 * 16 / timings[call]["median_seconds"]
            assert timings[call]["flops_per_second"] == timings["flops"] / timings[call]["median_seconds"]
            assert timings[call]["share_of_peak"] is None
        assert timings["roofline"]["flops"] == timings["flops"]
        assert timings["roofline"]["bytes"] > 33 * 16 * 3
        assert 0 < timings["roofline"]["share_of_matrix_product"] <= timings["roofline"]["share_of_roofline"]
        assert timings["program"]["memory_bytes"] > 33 * 16
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
    for part in ("encode plain", "decode compiled", "decode on device:", "encode ratio", "start  compiled  cold"):
        assert f"33x16 {part}" in table
    assert "GB" in table


def test_a_share_of_the_peak_where_it_is_known(monkeypatch, tmp_path, capsys):
    timing = dict.fromkeys(("median_seconds", "min_seconds", "max_seconds", "median_cpu_seconds"), 0.004)
    timing |= {"pixels_per_second": 1e6, "first_call_seconds": 1.0}
    calls: dict[str, Any] = {part: {call: dict(timing) for call in CALLS} | {"ratio": 1.0} for part in PARTS}
    calls["encode"]["on_device"]["median_seconds"] = 0.0025
    for part in PARTS:
        calls[part]["program"] = {"bytes_accessed": 1e9, "memory_bytes": 768 * 512 * 40}
        calls[part]["ceilings"] = {"flops_per_second": 1e15, "bytes_per_second": 4e12}
    answers = {
        "prepare": {
            "system": SYSTEM,
            "model": {"name": "lite", "parameters": 98_800_000, "dtype": "bfloat16", "config": {}},
            "peak_flops_per_second": 1e15,
            "flops": [{"width": 768, "height": 512, "encode": 2e12, "decode": 1e12}],
        },
        "measure_calls": {"width": 768, "height": 512, **calls},
    }
    start: dict[str, Any] = {"cold_seconds": 3.0, "warm_seconds": 2.0, "cold_cpu_seconds": 5.0, "warm_cpu_seconds": 4.0}
    start |= {"peak_memory_bytes": {"encoded": 1, "decoded": 10**9}}
    monkeypatch.setattr("cod_jax.benchmarks.codec.in_own_process", lambda measure, job: answers[measure.__name__])
    start["peak_device_memory_bytes"] = 5 * 10**9
    monkeypatch.setattr("cod_jax.benchmarks.codec.measure_start", lambda *_: start)
    assert main(["benchmark", "codec", "--size", "768x512", "--output", str(tmp_path / "a.json")]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    shares = {call: report["results"][0]["encode"][call]["share_of_peak"] for call in CALLS}
    assert shares == pytest.approx({"plain": 0.5, "compiled": 0.5, "on_device": 0.8})
    table = capsys.readouterr().out
    for part in (
        "50.0 %",
        "25.0 %",
        "80.0 %",
        "500000.0",
        "800000.0",
        "cold 3.0 s (CPU time 5.0 s), warm 2.0 s (4.0 s)",
        "1.00 GB decoded, of the device 5.00 GB",
        "768x512 encode on device: 2000.00 GFLOP at 800000.0 GFLOP/s, 80 % of",
        "40 MB per megapixel beside the weights",
    ):
        assert part in table
    assert "each megapixel more" not in table


def test_memory_per_megapixel_is_the_slope_between_the_smallest_and_the_largest_size():
    def result(height: int, peak: int | None) -> dict[str, Any]:
        peaks = {"encoded": peak, "decoded": peak and 2 * peak}
        start = {codec: {"peak_memory_bytes": peaks} for codec in ("plain", "compiled")}
        return {"width": 1000, "height": height, "start": start}

    found = memory_per_megapixel([result(3000, 700), result(1000, 500), result(2000, 900)])
    assert found is not None
    assert found["plain"] == {"encoded": 100.0, "decoded": 200.0}
    assert memory_per_megapixel([result(3000, 700)]) is None
    assert memory_per_megapixel([result(3000, None), result(1000, None)]) is None


def measured_training(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    """Measurements of two training steps of a network that is smaller than tiny."""
    small = {
        "codec": {"input_stride": 2, "encoder_width": 8, "latent_channels": 4, "num_groups": 2},
        "denoiser": {"hidden": 8, "hidden_pixel": 4, "num_blocks": 1, "num_pixel_blocks": 1, "bottleneck_width": 8},
    }
    fields = [
        f"--config.model.{part}.{name}={value}" for part, values in small.items() for name, value in values.items()
    ]
    output = tmp_path / "train.json"
    sizes = ["--image-size", "32", "--batch-size", "2", "--repeats", "2"]
    assert main(["benchmark", "train", *sizes, *arguments, *fields, "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    check_report(report, "train")
    for result in report["results"]:
        check_timing(result["step"], 2)
        assert (result["image_size"], result["batch_size"]) == (32, 2)
        assert result["images_per_second"] > 0
        assert result["compile_seconds"] > 0
        assert all(value > 0 for value in result["ceilings"].values())
        assert result["roofline"]["flops_per_second"] == result["roofline"]["flops"] / result["step"]["median_seconds"]
        assert 0 < result["roofline"]["share_of_matrix_product"] <= result["roofline"]["share_of_roofline"]
    return report["results"]


@pytest.mark.slow
def test_training(tmp_path, capsys):
    (result,) = measured_training(tmp_path)
    assert result["update"] == "model"
    assert {"flow", "reconstruction", "commitment"} <= set(result["loss_terms"])
    assert "step of model" in capsys.readouterr().out


@pytest.mark.slow
def test_training_of_student_and_critic(tmp_path, capsys):
    teacher = tmp_path / "teacher"
    save_bundle(teacher, tiny_model_config(), numpy_params(build_model(tiny_model_config()).shapes), training={})
    student, critic = measured_training(
        tmp_path,
        "--config=configs/tiny_one_step.py:2",
        f"--config.objective.teacher={teacher}",
        "--config.objective.discriminator.widths=(4, 4)",
    )
    assert [student["update"], critic["update"]] == ["student", "critic"]
    assert {"distribution_matching", "adversarial"} <= set(student["loss_terms"])
    table = capsys.readouterr().out
    assert "step of student" in table
    assert "step of critic" in table


def test_every_kind_of_step_has_a_process_of_its_own(monkeypatch, tmp_path):
    jobs = []

    def answer(measure, job, environment):
        jobs.append((measure, job["update"], environment))
        result = {**TRAINING_RESULT, "update": ("student", "critic")[job["update"]]}
        return {"system": SYSTEM, "model": TRAINED_MODEL, "num_updates": 2, "result": result}

    monkeypatch.setattr("cod_jax.benchmarks.training.in_own_process", answer)
    pages = {"GLIBC_TUNABLES": "of huge pages"}
    monkeypatch.setattr("cod_jax.huge_pages.environment", lambda: pages)
    assert main(["benchmark", "train", "--output", str(tmp_path / "a.json")]) == 0
    assert jobs == [(measure_training, 0, pages), (measure_training, 1, pages)]
    report = json.loads((tmp_path / "a.json").read_text())
    check_report(report, "train")
    assert [result["update"] for result in report["results"]] == ["student", "critic"]


def test_frozen_networks_are_not_zero():
    shapes = {"a": {"kernel": jax.ShapeDtypeStruct((3, 50), jnp.float32)}, "b": jax.ShapeDtypeStruct((99,), "bfloat16")}
    params = random_params(shapes)
    assert jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params) == shapes
    for leaf in jax.tree.leaves(params):
        assert 0 < np.abs(leaf.astype(np.float32)).max() <= 0.03
        assert len(np.unique(leaf)) > 50


def test_the_table_of_training(monkeypatch, capsys):
    result = {**TRAINING_RESULT, "update": "student"}
    measured = {"system": SYSTEM, "model": TRAINED_MODEL, "num_updates": 1, "result": result}
    monkeypatch.setattr("cod_jax.benchmarks.training.in_own_process", lambda *_: measured)
    assert main(["benchmark", "train"]) == 0
    table = capsys.readouterr().out
    for part in ("1.5M parameters", "step of student", "commitment, flow", "16.00", "500.0 ms (400.0 to 600.0)"):
        assert part in table
    assert "peak memory: 1.50 GB\n" in table
    # 20 GFLOP in half a second; the gigabyte takes a fifth of it to copy, and the products half.
    assert "20.00 GFLOP at 40.0 GFLOP/s, 50 % of this device's matrix products (80.0 GFLOP/s) and 50 % of its" in table
    result["peak_device_memory_bytes"] = 7 * 10**9
    assert main(["benchmark", "train"]) == 0
    assert "peak memory: 1.50 GB, of the device 7.00 GB\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "required: subject"),
        (["codec", "--size", "768"], 2, "expected a size such as 768x512, got '768'"),
        (["codec", "--size", "0x512"], 2, "expected a positive whole number, got '0'"),
        (["codec", "--repeats", "-1"], 2, "expected a positive whole number, got '-1'"),
        (["codec", "--config.model.codec.pitch=16"], 2, "unrecognized arguments: --config.model.codec.pitch=16"),
        (["train", "--confi=x"], 2, "unrecognized arguments: --confi=x"),
        (["train", "--config.batch_size=2"], 2, "--config.batch_size is not used; --batch-size says what is measured"),
        (["train", "--config.data.image_size=32"], 2, "--image-size says what is measured"),
        (["train", "--config", "missing.py"], 2, "there is no config file missing.py"),
    ],
)
def test_wrong_arguments(arguments, status, message, capsys):
    assert main(["benchmark", *arguments]) == status
    assert message in capsys.readouterr().err


def test_a_model_folder_that_is_missing(tmp_path, capsys):
    assert main(["benchmark", "codec", "--model", str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err
