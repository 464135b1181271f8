"""Measuring a model on a folder of pictures."""

import csv
import functools
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cod_jax import images
from cod_jax.codec import Codec
from cod_jax.evaluation import metrics
from tests.model_fixtures import gradient_image, tiny_codec, tiny_sampling_codec
from tests.unit.commands.conftest import Cod, Result


@pytest.fixture
def photos(tmp_path) -> Path:
    images.save_png(tmp_path / "photos" / "a.png", gradient_image(32, 48))
    Image.fromarray(gradient_image(20, 40)).save(tmp_path / "photos" / "b.jpg")
    images.save_png(tmp_path / "photos" / "sub" / "a.png", gradient_image(1, 1))
    return tmp_path / "photos"


@pytest.fixture
def run(cod: Cod) -> Callable[..., Result]:
    return functools.partial(cod, "evaluate")


ARGUMENTS = ("--model", "MODEL", "--images", "photos", "--output", "result")


def test_every_picture_is_measured_from_its_bytes(run, photos: Path, tmp_path: Path):
    status, out, err = run(*ARGUMENTS)
    assert (status, err) == (0, "")
    assert out.startswith("3 pictures: ")

    output = tmp_path / "result"
    with (output / "per_image.csv").open(newline="") as file:
        *rows, mean = csv.DictReader(file)
    assert [row["name"] for row in rows] == ["a.png", "b.jpg", "sub/a.png"]
    for row in rows:
        original = images.to_uint8_rgb(photos / row["name"])
        compressed = (output / "compressed" / row["name"]).with_suffix(".cod")
        decoded = np.asarray(Image.open((output / "decoded" / row["name"]).with_suffix(".png")))
        np.testing.assert_array_equal(decoded, tiny_codec().decompress(compressed.read_bytes()))
        height, width, _ = original.shape
        assert (int(row["height"]), int(row["width"])) == (height, width)
        assert int(row["file_bytes"]) == compressed.stat().st_size
        assert float(row["bits_per_pixel"]) == 8 * compressed.stat().st_size / (height * width)
        assert float(row["psnr"]) == metrics.psnr(original, decoded)
        assert float(row["ms_ssim"]) == metrics.ms_ssim(original, decoded)

    summary = json.loads((output / "summary.json").read_text())
    assert mean["name"] == "mean"
    for name in ("bits_per_pixel", "psnr", "ms_ssim"):
        average = math.fsum(float(row[name]) for row in rows) / 3
        assert float(mean[name]) == pytest.approx(average)
        assert summary[name] == pytest.approx(average)
    assert summary["num_images"] == 3
    assert summary["failed"] == {}
    assert [row["ms_ssim_scales"] for row in rows] == ["2", "1", "1"]
    assert summary["num_with_fewer_ms_ssim_scales"] == 3
    assert " (3 at fewer than five scales); see result" in out
    assert [name for name, value in mean.items() if not value] == ["height", "width", "file_bytes", "ms_ssim_scales"]
    assert summary["decoding"] == {"num_steps": 1, "guidance_scale": 1.0, "sampler": "euler", "seed": 0}
    assert summary["quality"] == 1


def test_the_settings_of_decoding_are_used_and_written_down(run, tmp_path: Path, monkeypatch):
    codec = tiny_sampling_codec("pixel")
    monkeypatch.setattr("cod_jax.codec.load", lambda path: codec)
    images.save_png(tmp_path / "photos" / "a.png", gradient_image(30, 30))
    assert run(*ARGUMENTS, "--guidance", "4", "--seed", "5")[0] == 0
    data = (tmp_path / "result" / "compressed" / "a.cod").read_bytes()
    decoded = np.asarray(Image.open(tmp_path / "result" / "decoded" / "a.png"))
    np.testing.assert_array_equal(decoded, codec.decompress(data, guidance=4, seed=5))
    summary = json.loads((tmp_path / "result" / "summary.json").read_text())
    assert summary["decoding"] == {"num_steps": 3, "guidance_scale": 4.0, "sampler": "adams", "seed": 5}


def test_unreadable_pictures_are_named_at_the_end(run, photos: Path, tmp_path: Path):
    (photos / "broken.png").write_text("hello")
    status, out, err = run(*ARGUMENTS)
    assert status == 1
    assert out.startswith("3 pictures: ")
    assert err.startswith("cod evaluate: error: broken.png: not an image")
    assert err.count("\n") == 1
    assert list(json.loads((tmp_path / "result" / "summary.json").read_text())["failed"]) == ["broken.png"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED:\nout of memory"), "RESOURCE_EXHAUSTED: out of memory"),
    ],
)
def test_a_picture_that_takes_too_much_memory_does_not_stop_the_others(run, photos: Path, monkeypatch, error, reason):
    compress = Codec.compress

    def compress_small(self: Codec, image: np.ndarray, quality: int | None) -> bytes:
        if image.shape[0] == 32:
            raise error
        return compress(self, image)

    monkeypatch.setattr(Codec, "compress", compress_small)
    status, out, err = run(*ARGUMENTS)
    assert status == 1
    assert out.startswith("2 pictures: ")
    assert err == f"cod evaluate: error: a.png: {reason}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_measured_and_named(run, tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.png")
    images.save_png(tmp_path / "photos" / name, gradient_image(20, 40))
    (tmp_path / "photos" / ("broken-" + name)).write_text("hello")
    status, out, err = run(*ARGUMENTS)
    assert status == 1
    assert out.startswith("1 picture: ")
    assert err.startswith(r"cod evaluate: error: broken-caf\udce9.png: not an image")
    assert b"\ncaf\xe9.png,20,40," in (tmp_path / "result" / "per_image.csv").read_bytes()


def test_sigterm_leaves_nothing_behind(run, photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Codec, "compress", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert run(*ARGUMENTS) == (143, "", "cod evaluate: error: terminated\n")
    assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, signal.SIGTERM])
def test_the_results_so_far_are_kept_when_it_is_stopped(run, photos: Path, tmp_path: Path, monkeypatch, stop):
    compress = Codec.compress

    def compress_large(self: Codec, image: np.ndarray, quality: int | None) -> bytes:
        if image.shape[0] == 20:
            if stop is KeyboardInterrupt:
                raise KeyboardInterrupt
            signal.raise_signal(stop)
        return compress(self, image)

    monkeypatch.setattr(Codec, "compress", compress_large)
    status, out, err = run(*ARGUMENTS)
    assert (status, out) == (130 if stop is KeyboardInterrupt else 143, "")
    assert err.startswith("cod evaluate: warning: stopped; result has the results of 1 of 3 pictures\n")
    summary = json.loads((tmp_path / "result" / "summary.json").read_text())
    assert (summary["num_images"], summary["num_left"]) == (1, 2)
    with (tmp_path / "result" / "per_image.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["a.png", "mean"]
    # Earlier results are worth more than a part of new ones.
    (tmp_path / "result" / "summary.json").write_text("whole")
    assert run(*ARGUMENTS, "--force")[0] == status
    assert (tmp_path / "result" / "summary.json").read_text() == "whole"
    assert sorted(os.listdir(tmp_path)) == ["photos", "result"]


def test_a_log_hears_of_the_progress(run, photos: Path, monkeypatch):
    monkeypatch.setattr("cod_jax.evaluation.evaluate.SECONDS_IN_LOG", 0)
    lines = [f"cod evaluate: {number} of 3 pictures\n" for number in range(3)]
    assert run(*ARGUMENTS)[2] == "".join(lines)


@pytest.mark.parametrize(("images_folder", "output"), [("photos", "photos/result"), ("result/decoded", "result")])
def test_pictures_of_its_own_are_never_measured_or_replaced(run, photos: Path, tmp_path: Path, images_folder, output):
    if output == "result":
        assert run(*ARGUMENTS)[0] == 0
    before = sorted(tmp_path.rglob("*"))
    status, _, err = run("--model", "MODEL", "--images", images_folder, "--output", output, "--force")
    assert status == 2
    assert f"{output} {'holds' if output == 'result' else 'lies in'} {images_folder}" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_pictures_that_differ_in_their_suffix_are_all_measured(run, tmp_path: Path):
    for name in ("a.png", "a.jpg", "b.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(gradient_image(16, 16)).save(tmp_path / "photos" / name)
    assert run(*ARGUMENTS)[0] == 0
    assert sorted(os.listdir(tmp_path / "result" / "compressed")) == ["a.jpg.cod", "a.png.cod", "b.cod"]
    assert sorted(os.listdir(tmp_path / "result" / "decoded")) == ["a.jpg.png", "a.png.png", "b.png"]


def test_transparency_is_a_warning_of_one_line(run, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    Image.new("RGBA", (45, 30), (200, 0, 0, 90)).save(tmp_path / "photos" / "glass.png")
    status, _, err = run(*ARGUMENTS)
    assert (status, err) == (0, "cod evaluate: warning: glass.png: transparency was composited on white\n")


def test_nothing_readable_leaves_nothing_behind(run, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_text("hello")
    status, out, err = run(*ARGUMENTS)
    assert (status, out) == (1, "")
    assert "no picture could be measured; the first of 1: broken.png: not an image" in err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_all_formats_are_measured_but_animations_and_dangling_links(run, tmp_path: Path):
    picture = Image.fromarray(gradient_image(16, 16))
    (tmp_path / "photos").mkdir()
    for name in ("a.tif", "b.bmp", "c.gif"):
        picture.save(tmp_path / "photos" / name)
    picture.save(tmp_path / "photos" / "moving.gif", save_all=True, append_images=[picture.rotate(90)])
    (tmp_path / "photos" / "link.png").symlink_to("nothing.png")
    status, out, err = run(*ARGUMENTS)
    assert (status, out[:11]) == (1, "3 pictures:")
    assert err.splitlines() == [
        "cod evaluate: error: link.png: it is a link to a file that does not exist",
        "cod evaluate: error: moving.gif: the picture has several frames; save one of them as a still picture",
    ]


def test_the_limit_on_the_size_is_an_option(run, photos: Path):
    status, out, err = run(*ARGUMENTS, "--max-pixels", "1000")
    assert (status, out[:11]) == (1, "2 pictures:")
    assert (
        "a.png: 48x32 is more than the limit of 1000 pixels; make the picture smaller, or raise it with --max-p" in err
    )


def test_an_output_that_cannot_be_a_folder_is_named(run, photos: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    for output in ("file", "file/result"):
        status, _, err = run(*ARGUMENTS[:-1], output)
        assert status == 2
        assert "not a folder; choose another" in err
        assert "Errno" not in err


def test_an_earlier_result_needs_force(run, photos: Path, tmp_path: Path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "precious.txt").touch()
    assert "already exists" in run(*ARGUMENTS)[2]
    assert "holds no summary.json" in run(*ARGUMENTS, "--force")[2]
    (tmp_path / "result" / "summary.json").touch()
    assert run(*ARGUMENTS, "--force")[0] == 0
    assert not (tmp_path / "result" / "precious.txt").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "photos does not exist"),
        ([], "holds no JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF"),
    ],
)
def test_unusable_folders_are_named(run, tmp_path: Path, names: list[str] | None, message: str):
    for name in names or []:
        images.save_png(tmp_path / "photos" / name, gradient_image(1, 1))
    if names == []:
        (tmp_path / "photos").mkdir()
    status, out, err = run(*ARGUMENTS)
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "result").exists()


def test_wrong_usage(run):
    assert run("--model", "MODEL")[0] == 2
    status, _, err = run(*ARGUMENTS, "--steps", "0")
    assert status == 2
    assert "expected the number of steps to be a whole number from 1 to 1000, got 0" in err


def test_the_quality_is_handed_on_and_written_down(run, photos: Path, tmp_path: Path, monkeypatch):
    asked: list[int | None] = []
    file = tiny_codec().compress(gradient_image(20, 40))

    def compress(self: Codec, image: np.ndarray, quality: int | None) -> bytes:
        asked.append(quality)
        return file

    monkeypatch.setattr(Codec, "num_levels", 3)
    monkeypatch.setattr(Codec, "compress", compress)
    monkeypatch.setattr(Codec, "decompress", lambda self, data: gradient_image(20, 40))
    assert run(*ARGUMENTS, "--quality", "2")[0] == 1  # the other pictures have other sizes
    assert asked == [2, 2, 2]
    assert json.loads((tmp_path / "result" / "summary.json").read_text())["quality"] == 2
    assert run(*ARGUMENTS, "--quality", "0", "--force")[0] == 2


def test_a_quality_that_the_model_does_not_have_is_an_error(run, photos: Path):
    status, _, err = run(*ARGUMENTS, "--quality", "2")
    assert status == 2
    assert "this model has one quality only, got 2; leave the quality out" in err


def test_a_lossless_picture_does_not_make_the_mean_infinite(run, photos: Path, tmp_path: Path, monkeypatch):
    pictures: list[np.ndarray] = []

    def compress(self: Codec, image: np.ndarray, quality: int | None) -> bytes:
        pictures.append(image)
        return bytes(10)

    def decompress(self: Codec, data: bytes) -> np.ndarray:
        return pictures[-1] ^ np.uint8(len(pictures) > 1)

    monkeypatch.setattr(Codec, "compress", compress)
    monkeypatch.setattr(Codec, "decompress", decompress)
    assert run(*ARGUMENTS)[0] == 0
    summary = json.loads((tmp_path / "result" / "summary.json").read_text())
    assert summary["num_lossless"] == 1
    assert math.isfinite(summary["psnr"])
    with (tmp_path / "result" / "per_image.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["psnr"] == "inf"
