"""Tables of folders as lists of dicts."""

import json
from pathlib import Path

import pytest

from cod_jax import evaluation, images
from cod_jax.errors import UserError
from tests.model_fixtures import gradient_image, tiny_codec
from tests.report_fixtures import write_evaluation


def test_a_folder_gives_a_row_per_picture_and_quality(tmp_path: Path):
    codec, picture = tiny_codec(), gradient_image(40, 56)
    for name in ("b.png", "in/a.png"):
        images.save_png(tmp_path / name, picture)
    rows = evaluation.evaluate_folder(codec, tmp_path)
    data = codec.compress(picture)
    decoded = codec.decompress(data)
    assert [(row["name"], row["quality"]) for row in rows] == [("b.png", 1), ("in/a.png", 1)]
    first = rows[0]
    assert (first["width"], first["height"], first["bytes"]) == (56, 40, len(data))
    assert (first["bpp"], first["payload_bytes"]) == (8 * len(data) / (40 * 56), len(data) - 12)
    assert first["psnr"] == evaluation.psnr(picture, decoded)
    assert first["wasserstein"] == evaluation.wasserstein_distortion(picture, decoded)
    json.dumps(rows)
    assert evaluation.evaluate_folder(codec, tmp_path, qualities=[1]) == rows
    with pytest.raises(UserError, match="this model has one quality level only, got quality 2"):
        evaluation.evaluate_folder(codec, tmp_path, qualities=[2])


def test_a_folder_without_pictures_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="holds no pictures; give another folder"):
        evaluation.evaluate_folder(tiny_codec(), tmp_path)


def test_an_evaluation_is_read_back_as_rows(tmp_path: Path):
    folder, _, written = write_evaluation(tmp_path, num_pictures=2)
    results = evaluation.read_results(folder)
    rows, means = evaluation.per_image_rows(results), evaluation.mean_rows(results)
    assert len(rows) == 2 * len(means) == 2 * sum(len(curve["points"]) for curve in written["curves"])
    assert (rows[0]["curve"], rows[0]["name"]) == (means[0]["curve"], "picture 00.png") == ("compact", "picture 00.png")
    assert rows[0]["psnr"] == written["curves"][0]["points"][0]["images"][0]["psnr"]
    assert means[0]["bpp"] == written["curves"][0]["points"][0]["mean"]["bpp"]
