"""From a run folder to a model folder."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cod_jax.commands.main import main
from cod_jax.model_folder.bundle import load_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import ModelConfig, build_model, flatten_params
from tests.model_fixtures import numpy_params, tiny_bundle, tiny_latent_config, tiny_pixel_config
from tests.storage_fixtures import bucket as bucket

SETTINGS = {"objective": {"one_step_weight": 0.0, "one_step_fraction": 0.0}, "frozen": {"weights": ""}}


@pytest.fixture
def stub_run(monkeypatch) -> Callable[..., dict[str, Any]]:
    """Stand in for a run that trained a model with some settings; gives what would be saved, once it is."""

    def stub(config: ModelConfig, measured: dict[str, float] | None = None, **settings) -> dict[str, Any]:
        params = flatten_params(numpy_params(build_model(config).shapes))
        run = config.to_dict(), params, {"step": 7, "config": {**SETTINGS, **settings}, "validation": measured or {}}
        saved: dict[str, Any] = {}
        monkeypatch.setattr("cod_jax.training.saved_models.load_for_export", lambda *_, weights, step: run)
        monkeypatch.setattr(
            "cod_jax.model_folder.bundle.save_bundle", lambda *_, **options: saved.update(options) or "0" * 64
        )
        return saved

    return stub


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Stand in for the reading of checkpoints, which has its own tests; returns how it was called."""
    calls = []

    def load_for_export(workdir: str, weights: str = "ema", step: int | None = None):
        if not Path(workdir).is_dir():
            raise FileNotFoundError(f"{workdir} holds no checkpoints")
        calls.append((Path(workdir), weights, step))
        model = tiny_bundle()
        training = {"step": step or 7, "weights": weights, "config": SETTINGS}
        return model.config.to_dict(), flatten_params(model.params), training

    monkeypatch.setattr("cod_jax.training.saved_models.load_for_export", load_for_export)
    return calls


def test_writes_a_model_folder(calls, capsys, tmp_path: Path):
    output = tmp_path / "model"
    assert main(["export", "--workdir", str(tmp_path), "--output", str(output)]) == 0
    assert calls == [(tmp_path, "ema", None)]
    loaded = load_bundle(output)
    assert loaded.config == tiny_bundle().config
    assert loaded.training == {"step": 7, "weights": "ema", "config": SETTINGS}
    assert loaded.decoding == DecodingConfig(1, 3.0, "euler")
    assert capsys.readouterr().out == (
        f"wrote {output}: step 7, ema weights, fingerprint {loaded.fingerprint[:16]}\n"
        "default decoding: 1 step; with more: euler, guidance 3 (no validation measured more steps)\n"
    )


def test_takes_other_weights_and_replaces_by_force(calls, capsys, tmp_path: Path):
    arguments = [
        "export",
        "--workdir",
        str(tmp_path),
        "--output",
        str(tmp_path / "model"),
        "--weights",
        "raw",
        "--step",
        "3",
    ]
    assert main(arguments) == 0
    assert calls == [(tmp_path, "raw", 3)]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("cod export: error: ")
    assert main([*arguments, "--force"]) == 0


def test_a_missing_training_folder_is_one_line(calls, capsys, tmp_path: Path):
    assert main(["export", "--workdir", str(tmp_path / "nothing"), "--output", str(tmp_path / "model")]) == 2
    assert capsys.readouterr().err == f"cod export: error: {tmp_path / 'nothing'} holds no checkpoints\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pictures_is_refused_before_anything_is_written(calls, capsys, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    arguments = ["export", "--workdir", str(tmp_path), "--output", str(tmp_path / "model")]
    assert main([*arguments, "--images", str(tmp_path / "photos")]) == 2
    assert "photos holds no pictures; give a folder of" in capsys.readouterr().err
    assert not calls
    assert not (tmp_path / "model").exists()


def test_sigterm_leaves_nothing_behind(calls, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("safetensors.numpy.save", lambda _: signal.raise_signal(signal.SIGTERM))
    assert main(["export", "--workdir", str(tmp_path), "--output", str(tmp_path / "model")]) == 143
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage(capsys):
    assert main(["export", "--workdir", "runs"]) == 2
    assert main(["export", "--workdir", "runs", "--output", "model", "--weights", "best"]) == 2
    assert main(["export", "--workdir", "runs", "--output", "model", "--guidance", "-1"]) == 2
    assert "expected guidance to be a number from 0 to 1000, got -1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("objective", "options", "expected"),
    [
        ({"one_step_weight": 1.0, "one_step_fraction": 0.0}, (), DecodingConfig(1, 3.0, "adams")),
        ({"one_step_weight": 0.0, "one_step_fraction": 0.1}, (), DecodingConfig(1, 3.0, "adams")),
        (SETTINGS["objective"], (), DecodingConfig(1, 3.0, "adams")),
        (SETTINGS["objective"], ("--steps", "1"), DecodingConfig(1, 3.0, "adams")),
        ({"kind": "one_step"}, (), DecodingConfig(1, 3.0, "adams")),
        ({"kind": "one_step", "lora_rank": 0}, (), DecodingConfig(1, 1.0, "adams")),
        (
            {"one_step_weight": 1.0, "one_step_fraction": 0.0},
            ("--steps", "50", "--guidance", "2", "--sampler", "euler"),
            DecodingConfig(50, 2.0, "euler"),
        ),
    ],
)
def test_a_model_decodes_as_it_was_trained_to_unless_told(stub_run, objective, options, expected: DecodingConfig):
    saved = stub_run(tiny_pixel_config(), objective=objective)
    assert main(["export", "--workdir", "run", "--output", "model", *options]) == 0
    assert saved["decoding"] == expected
    assert not saved["autoencoder"]


@pytest.mark.parametrize(
    ("psnr", "options", "expected", "said"),
    [
        (21.5, (), DecodingConfig(20, 2.0, "adams"), "20 steps with guidance 2 had 21.50 dB and 95% of the texture"),
        (21.5, ("--guidance", "1.5"), DecodingConfig(20, 1.5, "adams"), "on the validation pictures"),
        (21.5, ("--steps", "1"), DecodingConfig(1, 2.0, "adams"), "--steps asks for it"),
        (14.0, (), DecodingConfig(1, 3.0, "adams"), "20 steps with guidance 2 had 14.00 dB"),
    ],
)
def test_the_validation_chooses_the_steps(stub_run, capsys, psnr, options, expected: DecodingConfig, said: str):
    measured = {
        "psnr_one_step": 24.0,
        "psnr_sampled": psnr,
        "texture": 10,
        "texture_one_step": 4,
        "texture_sampled": 9.5,
    }
    settings = {"num_sampling_steps": 20, "guidance_scale": 2.0}
    saved = stub_run(tiny_pixel_config(), measured=measured, validation=settings)
    assert main(["export", "--workdir", "run", "--output", "model", *options]) == 0
    assert saved["decoding"] == expected
    assert said in capsys.readouterr().out
    # A model trained for one step too keeps that, and takes the guidance for more.
    objective = {**SETTINGS["objective"], "one_step_weight": 1.0}
    saved = stub_run(tiny_pixel_config(), measured=measured, validation=settings, objective=objective)
    assert main(["export", "--workdir", "run", "--output", "model", *options]) == 0
    assert saved["decoding"] == dataclasses.replace(expected, num_steps=1)


def test_the_validation_of_the_average_says_nothing_about_the_raw_weights(stub_run, monkeypatch, capsys):
    measured = {"psnr_one_step": 24.0, "psnr_sampled": 23.0, "texture": 10, "texture_one_step": 4, "texture_sampled": 9}
    settings = {"num_sampling_steps": 20, "guidance_scale": 2.0}
    monkeypatch.setattr("cod_jax.training.saved_models.best_by", lambda _: "psnr_one_step")
    for weights, steps in (("ema", 20), ("raw", 1)):
        saved = stub_run(tiny_pixel_config(), measured=measured, validation=settings)
        assert main(["export", "--workdir", "run", "--output", "model", "--weights", weights]) == 0
        assert saved["decoding"].num_steps == steps
        assert saved["training"].get("validation") == (measured if weights == "ema" else None)
        out = capsys.readouterr().out
        assert ("(24) of the moving average, raw weights, " in out) == (weights == "raw")
        assert ("(the validation measured the moving average, not these weights)" in out) == (weights == "raw")
    assert saved["training"]["step"] == 7


@pytest.mark.parametrize("options", [(), ("--frozen-weights", "elsewhere")])
def test_a_latent_model_gets_the_autoencoder_of_its_run(stub_run, monkeypatch, options: tuple[str, ...]):
    monkeypatch.setattr("cod_jax.interop.load_sd_vae", lambda folder, **_: {"from": str(folder)})
    saved = stub_run(tiny_latent_config("sd_vae"), frozen={"weights": "weights"})
    assert main(["export", "--workdir", "run", "--output", "model", *options]) == 0
    assert saved["autoencoder"] == {"from": options[1] if options else "weights"}


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("", "its run names no folder of that file; give its folder with --frozen-weights"),
        ("nowhere", "there is no such file or folder as nowhere; download it from https://huggingface.co"),
    ],
)
def test_a_missing_autoencoder_is_one_line_with_a_way_out(stub_run, capsys, folder: str, message: str):
    saved = stub_run(tiny_latent_config("sd_vae"), frozen={"weights": folder})
    assert main(["export", "--workdir", "run", "--output", "model"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "--frozen-weights" in err
    assert err.count("\n") == 1
    assert not saved


def test_weight_files_of_an_autoencoder_that_the_model_lacks_are_refused(stub_run, capsys):
    stub_run(tiny_pixel_config())
    assert main(["--workdir", "runs", "--output", "out", "--frozen-weights", "w"], command="export") == 2
    assert "--frozen-weights has no effect on this model" in capsys.readouterr().err


def test_an_address_without_weight_files_is_refused(calls, bucket, capsys):
    arguments = {"--workdir": "runs", "--output": "out", "--frozen-weights": f"{bucket}/weights"}
    assert main([f"{name}={value}" for name, value in arguments.items()], command="export") == 2
    assert f"{bucket}/weights does not exist" in capsys.readouterr().err
    assert not calls
