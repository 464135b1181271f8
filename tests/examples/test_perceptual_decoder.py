"""The example that fine-tunes another codec's decoder, for a few steps."""

import csv

import pytest
from PIL import Image
from skimage import data as photographs

from examples import perceptual_decoder


@pytest.mark.slow
def test_the_decoder_changes_and_the_files_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual_decoder, "HEAD_START", 2)
    monkeypatch.setattr(perceptual_decoder, "BATCH", 2)
    (tmp_path / "photos").mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(photographs, name)()[:384, :384]).save(tmp_path / "photos" / f"{name}.png")
    folders = ["--photos", str(tmp_path / "photos"), "--pictures", str(tmp_path / "photos")]
    output = tmp_path / "output"
    perceptual_decoder.main([*folders, "--output", str(output), "--steps", "20", "--tune-steps", "3"])
    with (output / "measures.csv").open() as file:
        before, after = csv.DictReader(file)
    assert (before["decoder"], after["decoder"]) == ("before", "after")
    assert before["bits per pixel"] == after["bits per pixel"]
    assert before["PSNR"] != after["PSNR"]
    assert float(before["PSNR"]) > 17
    with Image.open(output / "pictures.png") as shown:
        assert shown.size == (2 * 256, 3 * 256)
