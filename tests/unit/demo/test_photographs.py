"""The photographs of scikit-image as the demo takes them, and the trivial coder on them."""

from pathlib import Path

import pytest
from PIL import Image

from cod_jax import images
from cod_jax.errors import UserError
from demo import baseline, comparison, photographs


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
            assert min(picture.size) == photographs.SHORT_EDGE


def test_missing_scikit_image_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[demo\]'"):
        photographs.write_photographs(tmp_path)


def test_flat_cells_beat_the_mean_colour_on_photographs(folders: tuple[Path, Path]):
    pictures = [images.to_uint8_rgb(path) for path in sorted(folders[0].iterdir())]
    colours = baseline.fit_colours(pictures, 16, 16)
    for picture in pictures:
        flat = comparison.squared_error(picture, baseline.paint_colours(picture, colours, 16))
        assert flat < comparison.squared_error(picture, baseline.paint_mean(picture))
