"""`cod models`."""

import dataclasses
import json
import os
from pathlib import Path

from cod_jax.model_folder.bundle import load_bundle
from cod_jax.model_folder.search import find_model
from cod_jax.specialize.folder import write_compiled
from tests.coding_fixtures import fitted
from tests.model_fixtures import save_tiny_model, tiny_bundle
from tests.unit.commands.conftest import Cod


def test_models_are_listed_with_fingerprint_rate_and_place(cod: Cod, tmp_path: Path, monkeypatch, caplog):
    save_tiny_model(tmp_path / "one")
    save_tiny_model(tmp_path / "many" / "two")
    monkeypatch.setenv("COD_JAX_MODELS", os.pathsep.join(("one", "many", "nothing")))
    fingerprint = load_bundle("one").fingerprint
    result = cod("models")
    assert (result.status, result.err) == (0, "")
    assert caplog.messages == ["COD_JAX_MODELS names nothing, which is not a folder; correct the variable"]
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


def test_compiled_folders_are_listed_where_they_are_named_themselves(cod: Cod, tmp_path: Path, monkeypatch):
    bundle = dataclasses.replace(tiny_bundle(), prior=fitted(16))
    write_compiled(tmp_path / "many" / "compiled", bundle, platforms=["cpu"], dtype="float32")
    monkeypatch.setenv("COD_JAX_MODELS", "many")
    assert cod("models").out == "no models found; name their folders in COD_JAX_MODELS\n"
    assert find_model(bundle.symbol_coder().fingerprint[:8], "static") is None
    monkeypatch.setenv("COD_JAX_MODELS", "many/compiled")
    fingerprint = bundle.symbol_coder().fingerprint
    assert cod("models").out == f"{fingerprint[:16]}  0.01562 bits per pixel  many/compiled (compiled)\n"
    assert find_model(fingerprint[:8], "static") == Path("many/compiled")
    # With a description of a model beside it, it is that model, which nobody has to trust.
    save_tiny_model(tmp_path / "model")
    (tmp_path / "model" / "model.json").rename(tmp_path / "many" / "compiled" / "model.json")
    assert cod("models").out.endswith("  many/compiled (lacks weights.safetensors)\n")


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
