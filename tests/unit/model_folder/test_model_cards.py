"""The card of the models that come with the package tells the truth about their folders."""

import hashlib
from pathlib import Path

import pytest

from cod_jax.model_folder.description import read_fingerprints
from cod_jax.model_folder.included import FOLDER, included_models

CARD = (FOLDER / "README.md").read_text()
MODELS = list(included_models())
MAX_BYTES = 16_000_000


@pytest.fixture(
    params=MODELS or [pytest.param(None, marks=pytest.mark.skip(reason="no model comes with this checkout"))]
)
def model(request: pytest.FixtureRequest) -> Path:
    return request.param


def _section(model: Path) -> str:
    """Return what the card says about a model."""
    sections = {text.partition("\n")[0]: text for text in CARD.split("\n## ")[1:]}
    return sections[model.name]


def test_the_card_names_the_fingerprint_of_the_folder_and_the_hashes_of_its_files(model: Path):
    section = _section(model)
    assert f"`{read_fingerprints(model).folder}`" in section, "write what cod info prints into the card"
    for file in sorted(model.iterdir()):
        assert f"| `{file.name}` | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |" in section, file


def test_the_card_is_complete(model: Path):
    assert "TODO" not in _section(model)


def test_included_models_are_small():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
