"""A compiled folder."""

import shutil
from pathlib import Path

import pytest

from cod_jax.specialize.folder import write_compiled
from tests.model_fixtures import tiny_bundle


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Return the tiny model as a compiled folder, which may not be changed."""
    path = tmp_path_factory.mktemp("compiled") / "tiny"
    write_compiled(path, tiny_bundle(), platforms=["cpu"], dtype="float32")
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Return a copy to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))
