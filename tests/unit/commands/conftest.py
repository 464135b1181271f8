"""The command `cod`, run in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cod_jax import images
from cod_jax.commands.main import main
from cod_jax.model_folder import included
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
