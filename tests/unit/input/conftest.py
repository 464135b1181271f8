import pytest
from PIL import Image
from skimage import data as photographs

from tests.input_fixtures import SIZE, colour_of, write_image


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A folder of 12 pictures of one colour each; the red value is the position by name."""
    folder = tmp_path_factory.mktemp("colours")
    for index in range(12):
        write_image(folder / f"{index:02d}.png", colour_of(index))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 32 pieces of photographs, larger than the crops."""
    folder = tmp_path_factory.mktemp("photos")
    for name, photograph in (("astronaut.png", photographs.astronaut()), ("coffee.jpg", photographs.coffee())):
        for piece in range(16):
            top, left = 90 * (piece // 4), 100 * (piece % 4)
            Image.fromarray(photograph[top : top + 48, left : left + 60]).save(folder / f"{piece}-{name}")
    return folder


@pytest.fixture
def partly_broken(colours, tmp_path):
    for path in colours.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "03.png").write_bytes(b"no image")
    (tmp_path / "07.png").write_bytes((colours / "07.png").read_bytes()[:50])
    write_image(tmp_path / "08.png", colour_of(8), (100, SIZE - 1))
    (tmp_path / "11.png").write_bytes(b"")
    return tmp_path
