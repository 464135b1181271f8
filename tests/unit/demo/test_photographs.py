"""The photographs of scikit-image as the demo takes them."""

from pathlib import Path

import pytest
from PIL import Image

from cod_jax.errors import UserError
from demo import photographs


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return photographs.write_photographs(tmp_path_factory.mktemp("demo"))


def test_photographs_come_with_scikit_image_and_the_held_out_one_is_apart(folders: tuple[Path, Path]):
    train, held_out = folders
    assert len(list(train.iterdir())) == len(photographs.TRAINING_PHOTOGRAPHS)
    assert [path.stem for path in held_out.iterdir()] == [Path(photographs.HELD_OUT_PHOTOGRAPH).stem]
    for path in (*train.iterdir(), *held_out.iterdir()):
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            assert picture.size == (photographs.WIDTH, photographs.HEIGHT)


def test_missing_scikit_image_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[demo\]'"):
        photographs.write_photographs(tmp_path)
