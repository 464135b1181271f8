"""The command `cod`, run in this process."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from cod_jax import images
from cod_jax.commands.main import main
from cod_jax.evaluation import stages
from cod_jax.model_folder import included
from tests.evaluation_fixtures import in_this_process
from tests.model_fixtures import gradient_image, load_tiny


class Result(NamedTuple):
    status: int
    out: str
    err: str


Cod = Callable[..., Result]


@pytest.fixture
def cod(monkeypatch, capsys, tmp_path) -> Cod:
    """Run the command in a folder of its own, with the tiny model under every name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cod_jax.codec.load", load_tiny)
    monkeypatch.setattr("cod_jax.codec.kept.load_kept", load_tiny)
    monkeypatch.setattr("cod_jax.model_folder.places.check_place", lambda folder, compiled=False: None)

    # Tests see the models that they make, and no others.
    monkeypatch.setattr(included, "FOLDER", tmp_path / "included")

    def run(*argv: str) -> Result:
        status = main(argv)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def photo(tmp_path) -> Path:
    images.save_png(tmp_path / "photo.png", gradient_image(30, 45))
    return tmp_path / "photo.png"


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of three pictures, of which one is not a PNG and one lies in a folder."""
    images.save_png(tmp_path / "photos" / "a.png", gradient_image(32, 48))
    Image.fromarray(gradient_image(20, 40)).save(tmp_path / "photos" / "b.jpg")
    images.save_png(tmp_path / "photos" / "sub" / "a.png", gradient_image(1, 1))
    return tmp_path / "photos"


@pytest.fixture
def run(cod: Cod, monkeypatch) -> Cod:
    """Run `cod evaluate` in this process."""
    # Here, because a command prints warnings, also that of beartype about annotations of Flax.
    importlib.import_module("cod_jax.interop.frozen_networks")
    monkeypatch.setattr("cod_jax.evaluation.evaluate.fresh_processes", in_this_process)
    monkeypatch.setattr("cod_jax.model_folder.describe.describe_model", lambda path: {"parameters": 7})
    monkeypatch.setattr(stages, "_warm", set())
    return functools.partial(cod, "evaluate")
