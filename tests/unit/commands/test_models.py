"""`cod models`."""

import json
import os
from pathlib import Path

from cod_jax.model_folder.bundle import load_bundle
from tests.model_fixtures import save_tiny_model
from tests.unit.commands.conftest import Cod


def test_models_are_listed_with_fingerprint_rate_and_place(cod: Cod, tmp_path: Path, monkeypatch):
    save_tiny_model(tmp_path / "one")
    save_tiny_model(tmp_path / "many" / "two")
    monkeypatch.setenv("COD_JAX_MODELS", os.pathsep.join(("one", "many", "nothing")))
    fingerprint = load_bundle("one").fingerprint
    result = cod("models")
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines() == [
        f"{fingerprint[:16]}  0.01562 bits per pixel  one",
        f"{fingerprint[:16]}  0.01562 bits per pixel  many/two",
    ]
    assert json.loads(cod("models", "--json").out)[0] == {
        "fingerprint": fingerprint,
        "rate": "0.01562 bits per pixel",
        "place": "one",
        "complete": True,
    }


def test_a_folder_without_weights_is_marked(cod: Cod, tmp_path: Path, monkeypatch):
    save_tiny_model(tmp_path / "one")
    (tmp_path / "one" / "weights.safetensors").unlink()
    monkeypatch.setenv("COD_JAX_MODELS", "one")
    assert cod("models").out.endswith("  one (lacks weights.safetensors)\n")
    assert not json.loads(cod("models", "--json").out)[0]["complete"]


def test_a_damaged_model_is_named_and_the_others_are_listed(cod: Cod, tmp_path: Path, monkeypatch):
    save_tiny_model(tmp_path / "models" / "good")
    (tmp_path / "models" / "bad").mkdir()
    (tmp_path / "models" / "bad" / "model.json").write_text("{")
    monkeypatch.setenv("COD_JAX_MODELS", "models")
    result = cod("models")
    assert result.status == 1
    assert result.out.endswith("  models/good\n")
    assert result.err.startswith("cod models: error: models/bad/model.json is damaged")


def test_models_that_need_an_untrusted_package_or_another_prior_are_named(cod: Cod, tmp_path: Path, monkeypatch):
    for name in ("a_prior", "b_package", "c_good"):
        save_tiny_model(tmp_path / "models" / name)
    (tmp_path / "models" / "a_prior" / "prior.safetensors").write_bytes(b"damaged")
    file = tmp_path / "models" / "b_package" / "model.json"
    description = json.loads(file.read_text())
    description["model"]["denoiser"] = {"kind": "no_such_package.blocks:Denoiser"}
    file.write_text(json.dumps(description))
    monkeypatch.setenv("COD_JAX_MODELS", "models")
    result = cod("models")
    assert result.status == 1
    assert [line.rpartition("  ")[2] for line in result.out.splitlines()] == ["models/c_good"]
    first, second = result.err.splitlines()
    assert first.startswith("cod models: error: models/a_prior/prior.safetensors is damaged")
    assert second.startswith("cod models: error: models/b_package/model.json: ")
    assert "needs no_such_package.blocks:Denoiser; install no_such_package" in second


def test_where_there_are_none_the_variable_is_named(cod: Cod, monkeypatch):
    monkeypatch.delenv("COD_JAX_MODELS", raising=False)
    assert cod("models") == (0, "no models found; name their folders in COD_JAX_MODELS\n", "")
