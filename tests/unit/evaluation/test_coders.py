"""Other codecs, and folders of their results."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cod_jax.errors import UserError
from cod_jax.evaluation import baselines
from cod_jax.evaluation.baselines import FORMATS, SCALES, Baseline
from cod_jax.evaluation.coders import Results
from cod_jax.evaluation.metrics import psnr
from tests.model_fixtures import gradient_image

PICTURE = gradient_image(50, 70)


@pytest.mark.parametrize("name", FORMATS)
def test_every_codec_comes_back_better_at_a_higher_rate(name: str):
    assert baselines.missing(name) is None
    for scale in SCALES:
        coder, values = Baseline(name, scale), []
        for _, settings in (coder.points()[0], coder.points()[-1]):
            data = coder.encode(PICTURE, settings, "a")
            decoded = coder.decode(data, settings, "a", (70, 50))
            assert decoded.shape == PICTURE.shape
            values.append((len(data), psnr(PICTURE, decoded)))
        assert values[0] < values[1]
        assert coder.about()["versions"]
    assert Baseline(name, 0.25).name == f"{name}-quarter"


def test_mozjpeg_changes_no_pixel():
    settings = {"quality": 20, "scale": 1.0}
    plain, better = (Baseline(name) for name in ("jpeg", "mozjpeg"))
    pictures = [coder.decode(coder.encode(PICTURE, settings, ""), settings, "", (70, 50)) for coder in (plain, better)]
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_unknown_and_missing_codecs_are_named(monkeypatch):
    with pytest.raises(UserError, match="expected a baseline among jpeg, mozjpeg, webp, avif, jxl, got 'bpg'"):
        baselines.missing("bpg")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert baselines.missing("jxl") == "imagecodecs is not installed; pip install 'cod_jax[eval]'"


def test_what_a_codec_cannot_take_is_an_error_of_one_picture():
    wide = np.zeros((1, 16384, 3), np.uint8)
    with pytest.raises(UserError, match=r"^WebP cannot encode the picture \(.*\); leave it out, or webp among"):
        Baseline("webp").encode(wide, {"quality": 0, "scale": 1.0}, "wide")
    for name in ("jpeg", "jxl"):
        with pytest.raises(UserError, match=r"cannot decode the picture \("):
            Baseline(name).decode(b"broken", {}, "a", (1, 1))


def test_a_name_that_begins_like_another_one_is_another_picture(tmp_path: Path):
    for name in ("photo.png", "photo.1.png", "photo.1.2.png"):
        Image.fromarray(PICTURE + np.uint8(len(name))).save(tmp_path / name)
    (tmp_path / "photo.bin").write_bytes(b"of photo")
    (tmp_path / "photo.1.bin").write_bytes(b"of photo.1")
    coder, settings = Results(str(tmp_path.parent)), {"folder": tmp_path.name}
    assert coder.encode(PICTURE, settings, "photo") == b"of photo"
    assert coder.encode(PICTURE, settings, "photo.1") == b"of photo.1"
    assert coder.encode(PICTURE, settings, "photo.1.2") is None
    for stem in ("photo", "photo.1", "photo.1.2"):
        expected = PICTURE + np.uint8(len(f"{stem}.png"))
        np.testing.assert_array_equal(coder.decode(b"", settings, stem, (70, 50)), expected)


def test_the_digest_of_results_is_that_of_names_and_contents(tmp_path: Path):
    rate, coder = tmp_path / "0.1", Results(str(tmp_path))
    (rate / "sub").mkdir(parents=True)
    (rate / "sub" / "a.png").write_bytes(b"one")
    first = coder.sha256()
    os.utime(rate / "sub" / "a.png", (0, 0))
    for other in (tmp_path / "notes.txt", rate / ".hidden"):
        other.write_bytes(b"beside the files")
    assert coder.sha256() == first
    (rate / "sub" / "a.png").write_bytes(b"two")
    second = coder.sha256()
    (rate / "sub" / "a.png").rename(rate / "sub" / "b.png")
    third = coder.sha256()
    (rate / "gone.png").symlink_to("nothing.png")  # one picture fails, and not the evaluation
    assert len({first, second, third, coder.sha256()}) == 4


def test_a_folder_of_results(tmp_path: Path):
    rate = tmp_path / "0.1"
    (rate / "sub").mkdir(parents=True)
    Image.fromarray(PICTURE).save(rate / "a.png")
    (rate / "a.bin").write_bytes(bytes(77))
    Image.fromarray(PICTURE).save(rate / "sub" / "b.webp", lossless=True)
    Image.fromarray(PICTURE).save(rate / "c[1].png")
    coder, settings = Results(str(tmp_path)), {"folder": "0.1"}
    assert coder.rates() == ["0.1"]
    assert coder.encode(PICTURE, settings, "a") == bytes(77)
    assert coder.encode(PICTURE, settings, "sub/b") == (rate / "sub" / "b.webp").read_bytes()
    assert coder.encode(PICTURE, settings, "c[1]") is None
    for stem in ("a", "sub/b", "c[1]"):
        np.testing.assert_array_equal(coder.decode(b"", settings, stem, (70, 50)), PICTURE)
    with pytest.raises(UserError, match="to have 71x50 pixels, got 70x50"):
        coder.decode(b"", settings, "a", (71, 50))
    with pytest.raises(UserError, match=r"expected a decoded .*d\.png and at most one coded file .*got nothing"):
        coder.encode(PICTURE, settings, "d")
    (rate / "a.other").touch()
    with pytest.raises(UserError, match=r"got a.bin, a.other, a.png"):
        coder.encode(PICTURE, settings, "a")
    with pytest.raises(UserError, match="to hold a subfolder per rate, got none"):
        Results(str(rate / "sub")).rates()
