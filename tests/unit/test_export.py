"""From a training folder to a model folder."""

import signal
from pathlib import Path

import pytest

from cod_jax import export
from cod_jax.bundle import load_bundle
from cod_jax.models import flatten_params
from tests.model_fixtures import tiny_bundle


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Stand in for the reading of checkpoints, which has its own tests; returns how it was called."""
    calls = []

    def load_for_export(workdir: Path, weights: str = "ema", step: int | None = None):
        if not workdir.is_dir():
            raise FileNotFoundError(f"{workdir} holds no checkpoints")
        calls.append((workdir, weights, step))
        model = tiny_bundle()
        return model.config.to_dict(), flatten_params(model.params), {"step": step or 7, "weights": weights}

    monkeypatch.setattr("cod_jax.training.checkpoint.load_for_export", load_for_export)
    return calls


def test_writes_a_model_folder(calls, capsys, tmp_path: Path):
    output = tmp_path / "model"
    assert export.main(["--workdir", str(tmp_path), "--output", str(output)]) == 0
    assert calls == [(tmp_path, "ema", None)]
    loaded = load_bundle(output)
    assert loaded.config == tiny_bundle().config
    assert loaded.training == {"step": 7, "weights": "ema"}
    assert capsys.readouterr().out == f"wrote {output}: step 7, ema weights, fingerprint {loaded.fingerprint[:16]}\n"


def test_takes_other_weights_and_replaces_by_force(calls, capsys, tmp_path: Path):
    arguments = ["--workdir", str(tmp_path), "--output", str(tmp_path / "model"), "--weights", "raw", "--step", "3"]
    assert export.main(arguments) == 0
    assert calls == [(tmp_path, "raw", 3)]
    assert export.main(arguments) == 1
    assert capsys.readouterr().err.startswith("cod_jax.export: error: ")
    assert export.main([*arguments, "--force"]) == 0


def test_a_missing_training_folder_is_one_line(calls, capsys, tmp_path: Path):
    assert export.main(["--workdir", str(tmp_path / "nothing"), "--output", str(tmp_path / "model")]) == 1
    assert capsys.readouterr().err == f"cod_jax.export: error: {tmp_path / 'nothing'} holds no checkpoints\n"
    assert list(tmp_path.iterdir()) == []


def test_sigterm_leaves_nothing_behind(calls, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("safetensors.numpy.save", lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        export.main(["--workdir", str(tmp_path), "--output", str(tmp_path / "model")])
    assert stop.value.code == 143
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage(capsys):
    assert export.main(["--workdir", "runs"]) == 2
    assert export.main(["--workdir", "runs", "--output", "model", "--weights", "best"]) == 2
