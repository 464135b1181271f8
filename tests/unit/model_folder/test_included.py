"""Models that come with the package."""

import argparse
from pathlib import Path

import jax
import numpy as np
import pytest

import cod_jax
from cod_jax.commands.main import main
from cod_jax.commands.options import add_model_argument
from cod_jax.errors import UserError
from cod_jax.model_folder import included, search
from cod_jax.model_folder.bundle import load_bundle
from cod_jax.model_folder.prior_file import PRIOR_FILE
from cod_jax.models import build_model
from cod_jax.training.initial import load_initial
from cod_jax.training.teacher import load_teacher, load_teacher_config
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


def test_a_run_starts_from_an_included_model_by_its_name_and_a_teacher_is_found_by_it(folder: Path):
    bundle = load_bundle(folder / "small")
    initial = load_initial(Path("small"), "ema", {"model": build_model(bundle.config).shapes}, ())
    assert not initial.grown + initial.fresh + initial.left_out
    assert load_teacher_config("small") == bundle.config
    jax.tree.map(np.testing.assert_array_equal, load_teacher("small"), bundle.params)


def test_commands_take_the_names_of_included_models(folder: Path, capsys: pytest.CaptureFixture[str]):
    parser = argparse.ArgumentParser()
    add_model_argument(parser)
    assert parser.parse_args(["-m", "small"]).model == str(folder / "small")
    assert main(["info", "small"]) == 0
    assert load_bundle(folder / "small").fingerprint in capsys.readouterr().out


def test_the_prior_of_an_included_model_stays(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["fit-prior", "-m", "small", "--images", "."]) == 2
    assert "comes with the package" in capsys.readouterr().err
    assert not (folder / "small" / PRIOR_FILE).exists()


def test_files_name_included_models(folder: Path):
    fingerprint = load_bundle(folder / "small").fingerprint
    assert search.find_model(fingerprint[:8], "raw") == folder / "small"
