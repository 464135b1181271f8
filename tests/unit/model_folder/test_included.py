"""Models that come with the package."""

from pathlib import Path

import pytest

import cod_jax
from cod_jax.errors import UserError
from cod_jax.model_folder import included, search
from cod_jax.model_folder.bundle import load_bundle
from tests.model_fixtures import save_tiny_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Return the folder of included models, with one that is not the default."""
    monkeypatch.setattr(included, "FOLDER", tmp_path / "included")
    monkeypatch.delenv("COD_JAX_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "included" / "small")
    return tmp_path / "included"


def test_an_included_model_is_named_and_a_folder_of_its_name_comes_first(folder: Path, tmp_path: Path):
    assert included.model_path("small") == folder / "small"
    assert included.model_path("./small") == Path("small")
    assert included.model_path("other") == Path("other")
    save_tiny_model(tmp_path / "small")
    assert included.model_path("small") == Path("small")


def test_the_default_is_taken_where_there_is_one(folder: Path):
    with pytest.raises(UserError, match="no model comes with this installation; name a model folder"):
        cod_jax.load()
    (folder / "small").rename(folder / included.DEFAULT)
    assert cod_jax.load().fingerprint == load_bundle(folder / included.DEFAULT).fingerprint


def test_files_name_included_models(folder: Path):
    fingerprint = load_bundle(folder / "small").fingerprint
    assert search.find_model(fingerprint[:8], "raw") == folder / "small"
