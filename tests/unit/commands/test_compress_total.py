"""`cod compress --total-bytes`: a set of pictures within a number of bytes."""

import json
from pathlib import Path

import numpy as np
import pytest

from cod_jax.codec import Codec
from cod_jax.codec.allocation import Trial
from tests.unit.commands.conftest import Cod


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tiny model three levels, at which each row of a picture takes one, two or three bytes."""

    def compress_at_levels(self: Codec, image: np.ndarray, *, effort: int, layout: str) -> list[Trial]:
        height = image.shape[0]
        return [Trial(level, bytes([level]) * level * height, 1000 * height // level**2) for level in (1, 2, 3)]

    monkeypatch.setattr(Codec, "compress_at_levels", compress_at_levels)


def test_a_folder_is_compressed_within_a_number_of_bytes(cod: Cod, levels: None, photos: Path, tmp_path: Path):
    # 32, 20 and 1 rows: 53 bytes at the lowest level, and 20 more for the second picture.
    result = cod("compress", "-m", "MODEL", "photos", "-o", "out", "--total-bytes", "74")
    assert (result.status, result.err) == (0, "")
    files = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in tmp_path.rglob("*.cod")}
    assert {name: data[0] for name, data in files.items()} == {"a.cod": 1, "b.cod": 2, "sub/a.cod": 2}
    assert sum(map(len, files.values())) == 74
    *_, last = result.out.splitlines()
    error = (32000 + 5000 + 250) / (3 * (32 * 48 + 20 * 40 + 1))
    psnr = 10 * np.log10(255**2 / error)
    assert last == f"3 files: 74 bytes, 0.2533 bits per pixel, PSNR {psnr:.2f} dB of the pooled error"


def test_programs_learn_the_quality(cod: Cod, levels: None, photos: Path):
    result = cod("compress", "-m", "MODEL", "photos", "-o", "out", "--total-bytes", "1000", "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["output"], line["quality"], line["file_bytes"]) for line in lines] == [
        ("out/a.cod", 3, 96),
        ("out/b.cod", 3, 60),
        ("out/sub/a.cod", 3, 3),
    ]
    assert {"input", "width", "height", "bits_per_pixel"} < lines[0].keys()


def test_too_few_bytes_are_refused_with_the_least_that_would_do(cod: Cod, levels: None, photos: Path, tmp_path: Path):
    result = cod("compress", "-m", "MODEL", "photos", "--total-bytes", "52")
    assert (result.status, result.out) == (1, "")
    assert result.err == (
        "cod compress: error: --total-bytes: expected at least 53 bytes for 3 pictures, which the smallest files take, "
        "got 52; allow more, or leave out pictures\n"
    )
    assert not list(tmp_path.rglob("*.cod"))


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_done(cod: Cod, levels: None, photos: Path):
    (photos / "broken.png").write_text("hello")
    result = cod("compress", "-m", "MODEL", "photos", "--total-bytes", "100")
    assert result.status == 1
    assert [line.partition(": not an image")[0] for line in result.err.splitlines()] == [
        "cod compress: error: photos/broken.png",
        "cod compress: error: 1 of 4 files failed",
    ]
    assert "3 files: " in result.out
    assert sorted(path.name for path in photos.rglob("*.cod")) == ["a.cod", "a.cod", "b.cod"]


def test_an_output_that_exists_keeps_the_whole_set_from_being_compressed(cod: Cod, levels: None, photos: Path):
    (photos / "b.cod").write_bytes(b"precious")
    result = cod("compress", "-m", "MODEL", "photos", "--total-bytes", "100")
    assert (result.status, result.out) == (2, "")
    assert "photos/b.cod already exists; pass --force" in result.err
    assert [path.name for path in photos.rglob("*.cod")] == ["b.cod"]


def test_one_way_to_choose_the_quality_at_a_time(cod: Cod, photo: Path):
    result = cod("compress", "photo.png", "--total-bytes", "100", "--max-bytes", "50")
    assert result.status == 2
    assert "--max-bytes: not allowed with argument --total-bytes" in result.err
