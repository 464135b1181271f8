"""Measuring models and other codecs on a folder of pictures."""

import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from cod_jax import images
from cod_jax.codec import Codec
from cod_jax.evaluation import metrics
from tests.evaluation_fixtures import results_of, rows_of
from tests.model_fixtures import gradient_image, tiny_codec, tiny_sampling_codec

ARGUMENTS = ("--model", "MODEL", "--images", "photos", "--output", "result")


def point_of(tmp_path: Path) -> dict[str, Any]:
    """The only rate of the only curve."""
    ((point,),) = (curve["points"] for curve in results_of(tmp_path)["curves"])
    return point


def test_every_picture_is_measured_from_its_file(run, photos: Path, tmp_path: Path):
    status, out, err = run(*ARGUMENTS)
    assert (status, err) == (0, "")
    assert out.startswith("MODEL (1 step) 1: ")

    output, rows = tmp_path / "result", rows_of(tmp_path)
    assert [row["name"] for row in rows] == ["a.png", "b.jpg", "sub/a.png"]
    for row, values in zip(rows, point_of(tmp_path)["images"], strict=True):
        original = images.to_uint8_rgb(photos / row["name"])
        compressed = (output / "files" / "MODEL" / "1" / row["name"]).with_suffix(".cod")
        decoded = np.asarray(Image.open((output / "decoded" / "MODEL" / "1" / row["name"]).with_suffix(".png")))
        assert (output / values["file"], output / values["decoded"]) == (
            compressed,
            (output / "decoded" / "MODEL" / "1" / row["name"]).with_suffix(".png"),
        )
        np.testing.assert_array_equal(decoded, tiny_codec().decompress(compressed.read_bytes()))
        height, width, _ = original.shape
        assert (int(row["height"]), int(row["width"])) == (height, width)
        assert int(row["bytes"]) == compressed.stat().st_size > values["payload_bytes"]
        assert float(row["bpp"]) == 8 * compressed.stat().st_size / (height * width) == values["bpp"]
        assert float(row["psnr"]) == metrics.psnr(original, decoded) == values["psnr"]
        assert float(row["ms_ssim"]) == metrics.ms_ssim(original, decoded)
        assert values["encode_s"] > 0
        assert values["decode_s"] > 0
        assert "encode_s" not in row

    (mean,) = rows_of(tmp_path, "summary.csv")
    for name in ("bpp", "psnr", "ms_ssim"):
        average = math.fsum(float(row[name]) for row in rows) / 3
        assert float(mean[name]) == pytest.approx(average) == point_of(tmp_path)["mean"][name]
    error = sum(float(row["mse"]) * int(row["width"]) * int(row["height"]) for row in rows)
    pixels = sum(int(row["width"]) * int(row["height"]) for row in rows)
    assert float(mean["psnr_pooled"]) == pytest.approx(10 * math.log10(255**2 * pixels / error))
    assert float(mean["bpp_pooled"]) == pytest.approx(8 * sum(int(row["bytes"]) for row in rows) / pixels)
    assert (mean["num_images"], mean["num_with_fewer_ms_ssim_scales"]) == ("3", "3")
    assert [row["ms_ssim_scales"] for row in rows] == ["2", "1", "1"]
    assert point_of(tmp_path)["settings"] == {
        "quality": 1,
        "steps": 1,
        "guidance": 1.0,
        "sampler": "euler",
        "seed": 0,
    }


def test_pictures_that_are_left_out_are_named_in_one_way(run, photos: Path, caplog):
    (photos / "c.heic").touch()
    assert run("--files", "nothing", *ARGUMENTS[2:])[0] == 2
    # The folder is searched twice, and the same line is printed once.
    assert set(caplog.messages) == {"photos: left out 1: c.heic: not a kind of picture that is read"}


def test_the_settings_of_decoding_are_used_and_written_down(run, tmp_path: Path, monkeypatch):
    codec = tiny_sampling_codec("pixel")
    monkeypatch.setattr("cod_jax.codec.load", lambda path: codec)
    images.save_png(tmp_path / "photos" / "a.png", gradient_image(30, 30))
    assert run(*ARGUMENTS, "--guidance", "4,1", "--seed", "5", "--steps", "1,3")[0] == 0
    one, several, plain = results_of(tmp_path)["curves"]
    names = ["MODEL-1-step", "MODEL-3-steps-guidance-4", "MODEL-3-steps-guidance-1"]
    assert [curve["name"] for curve in (one, several, plain)] == names
    assert plain["title"] == "MODEL (3 steps, guidance 1)"
    assert [row["curve"] for row in rows_of(tmp_path, "dial.csv")] == names
    assert {path.name for path in (tmp_path / "result" / "plots").glob("dial_*")} == {
        "dial_MODEL.png",
        "dial_MODEL.svg",
    }
    # One file, decoded twice.
    ((image,), (other,)) = (curve["points"][0]["images"] for curve in (one, several))
    assert image["file"] == other["file"] == "files/MODEL/1/a.cod"
    data = (tmp_path / "result" / image["file"]).read_bytes()
    decoded = np.asarray(Image.open(tmp_path / "result" / other["decoded"]))
    np.testing.assert_array_equal(decoded, codec.decompress(data, guidance=4, seed=5, steps=3))
    settings = {"quality": 1, "steps": 3, "guidance": 4.0, "sampler": "adams", "seed": 5}
    assert several["points"][0]["settings"] == settings


def test_unreadable_pictures_are_named_at_the_end(run, photos: Path, tmp_path: Path):
    (photos / "broken.png").write_text("hello")
    status, _, err = run(*ARGUMENTS)
    assert status == 1
    assert err.startswith("cod evaluate: error: broken.png: not an image")
    assert err.count("\n") == 1
    assert list(results_of(tmp_path)["failed"]) == ["broken.png"]
    assert len(rows_of(tmp_path)) == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED:\nout of memory"), "RESOURCE_EXHAUSTED: out of memory"),
    ],
)
def test_a_picture_that_takes_too_much_memory_does_not_stop_the_others(
    run, photos: Path, tmp_path, monkeypatch, error, reason
):
    compress = Codec.compress

    def compress_small(self: Codec, image: np.ndarray, quality: int) -> bytes:
        if image.shape[0] == 32:
            raise error
        return compress(self, image)

    monkeypatch.setattr(Codec, "compress", compress_small)
    status, _, err = run(*ARGUMENTS)
    assert status == 1
    assert point_of(tmp_path)["failed"] == {"a.png": reason}
    assert point_of(tmp_path)["mean"]["num_images"] == 2
    assert err == f"cod evaluate: error: a.png: {reason}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_measured_and_named(run, tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.png")
    images.save_png(tmp_path / "photos" / name, gradient_image(20, 40))
    (tmp_path / "photos" / ("broken-" + name)).write_text("hello")
    status, _, err = run(*ARGUMENTS)
    assert status == 1
    assert err.startswith(r"cod evaluate: error: broken-caf\udce9.png: not an image")
    assert [row["name"] for row in rows_of(tmp_path)] == [name]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_tables(run, photos: Path, tmp_path, monkeypatch, stop):
    assert run(*ARGUMENTS)[0] == 0
    whole = {name: (tmp_path / "result" / name).read_bytes() for name in ("per_image.csv", "summary.csv")}
    compress, calls = Codec.compress, []

    def compress_large(self: Codec, image: np.ndarray, quality: int) -> bytes:
        calls.append(image.shape)
        if image.shape[0] == 20:
            if stop is KeyboardInterrupt:
                raise KeyboardInterrupt
            signal.raise_signal(stop)
        return compress(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(Codec, "compress", compress_large)
        status, out, err = run(*ARGUMENTS)
    # The same evaluation is there already, so that nothing is left to do.
    assert (status, err, calls) == (0, "", [])
    (tmp_path / "result" / "records.jsonl").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Codec, "compress", compress_large)
        status, out, err = run(*ARGUMENTS)
    assert (status, out) == (130 if stop is KeyboardInterrupt else 143, "")
    assert err.startswith("cod evaluate: error: ")
    # A line without its end, as of a process that was killed.
    with (tmp_path / "result" / "records.jsonl").open("ab") as file:
        file.write(b'{"work": "files/MODEL/1/b.cod", "byt')
    num_calls = len(calls)
    assert run(*ARGUMENTS)[0] == 0
    assert {name: (tmp_path / "result" / name).read_bytes() for name in whole} == whole
    assert num_calls == 2  # the first picture, and the one that stopped it


def test_another_evaluation_in_the_folder_is_kept_without_force(run, photos: Path, tmp_path: Path):
    assert run(*ARGUMENTS)[0] == 0
    status, _, err = run(*ARGUMENTS, "--seed", "3")
    assert status == 2
    assert "result holds an evaluation with other curves; choose another output, or pass --force to delete it" in err
    assert run(*ARGUMENTS, "--seed", "3", "--force")[0] == 0
    assert point_of(tmp_path)["settings"]["seed"] == 3
    images.save_png(photos / "new.png", gradient_image(8, 8))
    assert "other pictures" in run(*ARGUMENTS, "--seed", "3")[2]


def test_a_log_hears_of_the_progress(run, photos: Path, monkeypatch):
    monkeypatch.setattr("cod_jax.evaluation.evaluate.SECONDS_IN_LOG", 0)
    err = run(*ARGUMENTS)[2]
    assert err.splitlines() == [f"cod evaluate: {number} of 9 steps" for number in range(1, 10)]


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
    place = Path("MODEL", "1")
    assert sorted(os.listdir(tmp_path / "result" / "files" / place)) == ["a.jpg.cod", "a.png.cod", "b.cod"]
    assert sorted(os.listdir(tmp_path / "result" / "decoded" / place)) == ["a.jpg.png", "a.png.png", "b.png"]


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
    status, _, err = run(*ARGUMENTS)
    assert status == 1
    assert [row["name"] for row in rows_of(tmp_path)] == ["a.tif", "b.bmp", "c.gif"]
    assert err.splitlines() == [
        "cod evaluate: error: link.png: it is a link to a file that does not exist",
        "cod evaluate: error: moving.gif: the picture has several frames; save one of them as a still picture",
    ]


def test_the_limit_on_the_size_is_an_option(run, photos: Path, tmp_path: Path):
    status, _, err = run(*ARGUMENTS, "--max-pixels", "1000")
    assert (status, point_of(tmp_path)["mean"]["num_images"]) == (1, 2)
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
    assert "holds no plan.json" in run(*ARGUMENTS, "--force")[2]
    (tmp_path / "result" / "plan.json").touch()
    assert "holds an evaluation with other pictures" in run(*ARGUMENTS)[2]
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


def test_all_qualities_or_those_that_are_asked_for(run, tmp_path: Path, monkeypatch):
    images.save_png(tmp_path / "photos" / "a.png", gradient_image(20, 40))
    asked: list[int] = []
    file = tiny_codec().compress(gradient_image(20, 40))

    def compress(self: Codec, image: np.ndarray, quality: int) -> bytes:
        asked.append(quality)
        return file

    monkeypatch.setattr(Codec, "num_levels", 3)
    monkeypatch.setattr(Codec, "compress", compress)
    assert run(*ARGUMENTS)[0] == 0
    assert asked == [1, 1, 2, 3]  # the first one also before its time is taken
    asked.clear()
    assert run(*ARGUMENTS, "--quality", "3,1", "--force")[0] == 0
    assert asked == [3, 1]
    (curve,) = results_of(tmp_path)["curves"]
    assert [(point["label"], point["settings"]["quality"]) for point in curve["points"]] == [("3", 3), ("1", 1)]
    assert run(*ARGUMENTS, "--quality", "0", "--force")[0] == 2


def test_a_quality_that_the_model_does_not_have_is_an_error(run, photos: Path):
    status, _, err = run(*ARGUMENTS, "--quality", "2")
    assert status == 2
    assert "this model has one quality level only, got quality 2; leave the quality out" in err


def test_a_lossless_picture_does_not_make_the_mean_infinite(run, photos: Path, tmp_path: Path, monkeypatch):
    decoded: dict[bytes, np.ndarray] = {}
    tiny_compress = Codec.compress

    def compress(self: Codec, image: np.ndarray, quality: int) -> bytes:
        data = tiny_compress(self, image)
        decoded[data] = image ^ np.uint8(image.shape[0] > 20)
        return data

    monkeypatch.setattr(Codec, "compress", compress)
    monkeypatch.setattr(Codec, "decompress", lambda self, data, **_: decoded[data])
    assert run(*ARGUMENTS)[0] == 0
    mean = point_of(tmp_path)["mean"]
    assert mean["num_lossless"] == 2
    assert math.isfinite(mean["psnr"])
    assert point_of(tmp_path)["images"][1]["psnr"] is None
    assert rows_of(tmp_path)[1]["psnr"] == "inf"
