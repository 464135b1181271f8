"""The Python examples of the documents run, page by page, with a tiny model."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cod_jax import pillow
from cod_jax.commands.main import main as cod
from cod_jax.model_folder import included
from tests.documents import PAGES, Block, blocks, name_of
from tests.model_fixtures import gradient_image, save_tiny_model

# What examples call the things of their readers.
MODEL, COMPILED, PHOTO, PHOTOS = "MODEL", "COMPILED", "photo.jpg", "photos"
EXAMPLES = {name_of(page): found for page in PAGES if (found := blocks(page, "python"))}
# Pages whose examples use the codec in many ways, each of which is compiled.
SLOW = {"docs/codec.md", "docs/compiled.md", "docs/diffc.md", "docs/perceptual.md"}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and photographs, in which the examples are run."""
    save_tiny_model(tmp_path / MODEL)
    monkeypatch.setattr(included, "FOLDER", tmp_path / "included")
    save_tiny_model(tmp_path / "included" / included.DEFAULT)
    Image.fromarray(gradient_image(40, 56)).save(tmp_path / PHOTO)
    (tmp_path / PHOTOS).mkdir()
    for index, (height, width) in enumerate(((40, 56), (40, 56))):
        Image.fromarray(gradient_image(height, width)).save(tmp_path / PHOTOS / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COD_JAX_MODELS", raising=False)
    monkeypatch.setattr(pillow, "_registered", {})
    return tmp_path


def run(example: Block, namespace: dict[str, object]) -> None:
    """Run an example as if it stood at its place in the page; one that cannot run is compiled."""
    code = compile("\n" * (example.line - 1) + example.code, example.page, "exec")
    if not example.not_run:
        exec(code, namespace)


def test_there_are_examples():
    assert {"README.md", "docs/index.md", "docs/codec.md", "docs/extending.md"} <= EXAMPLES.keys()
    assert all(os.linesep not in example.not_run for found in EXAMPLES.values() for example in found)


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in EXAMPLES])
def test_the_examples_of_a_page_run_one_after_the_other(page: str, reader: Path):
    if any(COMPILED in example.code for example in EXAMPLES[page]):
        assert cod(["compile", "--model", MODEL, "--output", COMPILED, "--platforms", "cpu"]) == 0
    namespace: dict[str, object] = {"__name__": "example"}
    for example in EXAMPLES[page]:
        run(example, namespace)


def test_an_example_that_fails_names_its_place(reader: Path):
    wrong = Block("page.md", 7, "python", "a = 1\na.no_such_method()\n", "")
    with pytest.raises(AttributeError) as caught:
        run(wrong, {})
    place = caught.traceback[-1]
    assert (str(place.path).rpartition("/")[2], place.lineno + 1) == ("page.md", 8)


def test_the_model_of_the_examples_is_small(reader: Path):
    assert sum(file.stat().st_size for file in (reader / MODEL).iterdir()) < 2**22
    assert np.asarray(Image.open(PHOTO)).shape == (40, 56, 3)
