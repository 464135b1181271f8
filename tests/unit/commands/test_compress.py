"""`cod compress` and `cod decompress`."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cod_jax import images
from cod_jax.codec import MAX_PIXELS
from cod_jax.coding import container
from cod_jax.coding.stream import Layout
from cod_jax.commands.main import main
from tests.model_fixtures import gradient_image, save_tiny_model, tiny_codec, tiny_sampling_codec
from tests.unit.commands.conftest import Cod


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_photograph_becomes_a_file_and_a_picture_again(cod: Cod, photo: Path, tmp_path: Path):
    result = cod("compress", "-m", "MODEL", "photo.png")
    assert result == (0, "photo.png -> photo.cod: 45x30, 15 bytes, 0.08889 bits per pixel\n", "")
    data = (tmp_path / "photo.cod").read_bytes()
    assert data == tiny_codec().compress(gradient_image(30, 45))

    result = cod("decompress", "-m", "MODEL", "photo.cod", "-o", "back.png")
    assert result == (0, "photo.cod -> back.png: 45x30\n", "")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back.png")), tiny_codec().decompress(data))
    assert _files(tmp_path) == {"photo.png", "photo.cod", "back.png"}


def test_the_real_model_folder_is_loaded(capsys, photo: Path, tmp_path: Path):
    save_tiny_model(tmp_path / "model")
    assert main(["compress", "-m", str(tmp_path / "model"), str(photo)]) == 0
    payload = container.read((tmp_path / "photo.cod").read_bytes()).payload
    assert payload == container.read(tiny_codec().compress(gradient_image(30, 45))).payload
    capsys.readouterr()
    assert main(["info", str(tmp_path / "model")]) == 0
    out = capsys.readouterr().out
    assert "4 bits for 16x16 pixels, 0.01562 bits per pixel" in out
    assert "step         12" in out


def test_the_dial_between_closeness_and_texture(cod: Cod, photo: Path, tmp_path: Path, monkeypatch):
    codec = tiny_sampling_codec("pixel")
    monkeypatch.setattr("cod_jax.codec.kept.load_kept", lambda path: codec)
    assert cod("compress", "-m", "MODEL", "photo.png").status == 0
    data = (tmp_path / "photo.cod").read_bytes()

    def picture(*options: str) -> np.ndarray:
        assert cod("decompress", "-m", "MODEL", "photo.cod", "-o", "back.png", "--force", *options).status == 0
        return np.asarray(Image.open(tmp_path / "back.png"))

    np.testing.assert_array_equal(picture(), codec.decompress(data))
    np.testing.assert_array_equal(
        picture("--seed", "9", "--guidance", "0.5"), codec.decompress(data, seed=9, guidance=0.5)
    )
    options = ("--steps", "2", "--sampler", "euler", "--guidance", "1")
    np.testing.assert_array_equal(picture(*options), codec.decompress(data, steps=2, sampler="euler", guidance=1))


def test_the_limit_on_the_size_is_an_option(cod: Cod, photo: Path, tmp_path: Path):
    assert str(MAX_PIXELS) in cod("compress", "--help").out
    result = cod("compress", "-m", "MODEL", "photo.png", "--max-pixels", "1349")
    assert result.status == 1
    assert (
        "45x30 is more than the limit of 1349 pixels; make the picture smaller, or raise it with --max-pix"
        in result.err
    )
    assert cod("compress", "-m", "MODEL", "photo.png", "--max-pixels", "1350").status == 0
    result = cod("decompress", "-m", "MODEL", "photo.cod", "-o", "back.png", "--max-pixels", "1349")
    assert result.status == 1
    assert "if the file is to be trusted, raise it with --max-pixels" in result.err
    assert cod("decompress", "-m", "MODEL", "photo.cod", "-o", "back.png", "--max-pixels", "1350").status == 0


def test_a_quality_that_the_model_does_not_have_is_refused(cod: Cod, photo: Path):
    assert cod("compress", "-m", "MODEL", "photo.png", "--quality", "1").status == 0
    result = cod("compress", "-m", "MODEL", "photo.png", "--quality", "2", "--force")
    assert result.status == 2
    assert (
        result.err
        == "cod compress: error: this model has one quality level only, got quality 2; leave the quality out\n"
    )


def test_a_compressed_file_is_no_picture_to_compress(cod: Cod, photo: Path):
    assert cod("compress", "-m", "MODEL", "photo.png").status == 0
    result = cod("compress", "-m", "MODEL", "photo.cod", "-o", "out/")
    assert result.status == 1
    assert result.err == "cod compress: error: photo.cod: expected a picture, got a .cod file; decompress it first\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_printed_safely(cod: Cod, photo: Path, tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.png")
    photo.rename(tmp_path / name)
    result = cod("compress", "-m", "MODEL", name)
    assert result == (0, "caf\\udce9.png -> caf\\udce9.cod: 45x30, 15 bytes, 0.08889 bits per pixel\n", "")
    result = cod("compress", "-m", "MODEL", name)
    assert result.status == 2
    assert result.err.startswith("cod compress: error: caf\\udce9.png: caf\\udce9.cod already exists")
    assert "caf\\udce9.cod" in cod("info", os.fsdecode(b"caf\xe9.cod")).out


@pytest.mark.parametrize("output", ["out", "out/", "a/b"])
def test_several_files_go_into_a_folder(cod: Cod, photo: Path, tmp_path: Path, output: str):
    images.save_png(tmp_path / "other" / "line.png", gradient_image(1, 10))
    assert cod("compress", "-m", "MODEL", "photo.png", "other/line.png", "-o", output).status == 0
    assert _files(tmp_path / output) == {"photo.cod", "line.cod"}


def test_an_existing_output_needs_force(cod: Cod, photo: Path, tmp_path: Path):
    assert cod("compress", "-m", "MODEL", "photo.png").status == 0
    images.save_png(photo, gradient_image(60, 90))
    result = cod("compress", "-m", "MODEL", "photo.png")
    assert result.status == 2
    assert result.err.startswith("cod compress: error: photo.png: photo.cod already exists; pass --force")
    assert (tmp_path / "photo.cod").stat().st_size == 15
    assert cod("compress", "-m", "MODEL", "photo.png", "--force").status == 0
    assert (tmp_path / "photo.cod").stat().st_size > 15


def test_files_that_fail_are_named_and_the_others_are_done(cod: Cod, photo: Path, tmp_path: Path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:60])
    (tmp_path / "folder").mkdir()
    result = cod("compress", "-m", "MODEL", "text.png", "cut.png", "folder", "nothing.png", "photo.png", "-o", "out")
    assert result.status == 1
    assert result.out.count("\n") == 1
    lines = result.err.splitlines()
    # What can be known without the model comes first.
    assert lines[0].startswith("cod compress: error: folder: is a folder")
    assert lines[1].startswith("cod compress: error: nothing.png: does not exist")
    assert lines[2].startswith("cod compress: error: text.png: not an image")
    assert lines[3].startswith("cod compress: error: cut.png: ")
    assert lines[4:] == ["cod compress: error: 4 of 5 files failed"]
    assert _files(tmp_path / "out") == {"photo.cod"}


def test_broken_compressed_files_are_named(cod: Cod, photo: Path, tmp_path: Path):
    data = tiny_codec().compress(gradient_image(30, 45))
    for name, content in {"cut": data[:-1], "empty": b"", "other": photo.read_bytes(), "good": data}.items():
        (tmp_path / f"{name}.cod").write_bytes(content)
    result = cod("decompress", "-m", "MODEL", "cut.cod", "empty.cod", "other.cod", "good.cod", "-o", "out/")
    assert result.status == 1
    assert [line.split(": ")[2] for line in result.err.splitlines()[:3]] == ["cut.cod", "empty.cod", "other.cod"]
    assert "cut.cod: its checksum does not fit its content" in result.err
    assert "other.cod: this is a PNG picture, not a .cod file; compress it first" in result.err
    assert _files(tmp_path / "out") == {"good.png"}


def test_an_endless_file_is_not_read(cod: Cod, tmp_path: Path):
    with (tmp_path / "long.cod").open("wb") as file:
        file.truncate(container.MAX_BYTES + 1)
    assert "too many for a .cod file" in cod("decompress", "-m", "MODEL", "long.cod").err
    with (tmp_path / "long.cod").open("r+b") as file:
        file.write(b"\xff\xd8\xff\xe0")
    assert "this is a JPEG picture" in cod("decompress", "-m", "MODEL", "long.cod").err
    assert "not a regular file" in cod("decompress", "-m", "MODEL", os.devnull, "-o", "x.png").err


def test_an_output_that_cannot_be_written_is_named(cod: Cod, photo: Path, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    result = cod("compress", "-m", "MODEL", "photo.png", "-o", "file/photo.cod")
    assert result.status == 1
    assert result.err.startswith("cod compress: error: photo.png: ")
    assert result.err.endswith("/file is a file, not a folder; choose another place\n")
    assert _files(tmp_path) == {"photo.png", "file"}


def test_transparency_is_a_warning_of_one_line(cod: Cod, tmp_path: Path):
    Image.new("RGBA", (45, 30), (200, 0, 0, 90)).save(tmp_path / "glass.png")
    result = cod("compress", "-m", "MODEL", "glass.png")
    assert result.status == 0
    assert result.err == "cod compress: warning: glass.png: transparency was composited on white\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (["zip"], "invalid choice: 'zip'"),
        (["compress", "photo.png"], "no model comes with this installation; name a model folder"),
        (["compress", "-m", "MODEL"], "required: INPUT"),
        (["compress", "-m", "MODEL", "photo.png", "--fast"], "unrecognized arguments: --fast"),
        (["compress", "-m", "MODEL", "a.png", "b.png", "-o", "one.cod"], "one file but there are 2 inputs"),
        (["compress", "-m", "MODEL", "a.png", "-o", "out.jpg"], "end the name in .cod"),
        (["decompress", "-m", "MODEL", "a.cod", "-o", "out.jpg"], "end the name in .png"),
        (["compress", "-m", "MODEL", "x/a.png", "y/a.png", "-o", "out"], "would both be written to out/a.cod"),
        (["compress", "-m", "MODEL", "a.cod"], "which is an input"),
        (["decompress", "-m", "MODEL", "a.cod", "-o", "photo"], "photo is a file, not a folder"),
        (["decompress", "-m", "MODEL", "a.cod", "--steps", "0"], "steps to be a whole number from 1 to 1000, got 0"),
        (["decompress", "-m", "MODEL", "a.cod", "--steps", "2.5"], "--steps: expected a whole number, got '2.5'"),
        (
            ["decompress", "-m", "MODEL", "a.cod", "--guidance", "nan"],
            "expected guidance to be a number from 0 to 1000, got nan",
        ),
        (
            ["decompress", "-m", "MODEL", "a.cod", "--guidance", "-1"],
            "expected guidance to be a number from 0 to 1000, got -1.0",
        ),
        (["decompress", "-m", "MODEL", "a.cod", "--sampler", "heun"], "invalid choice: 'heun'"),
        (
            ["decompress", "-m", "MODEL", "a.cod", "--seed", "-1"],
            "expected seed to be a whole number from 0 to 2^63 - 1, got -1",
        ),
        (["compress", "-m", "MODEL", "a.png", "--steps", "2"], "--steps is for --mode diffc; add that"),
        (["compress", "-m", "MODEL", "a.png", "--mode", "diffc"], "--mode diffc takes one of --bpp and --steps"),
        (
            ["compress", "a.png", "--mode", "diffc", "--bpp", "1", "--steps", "2"],
            "--mode diffc takes one of --bpp and --steps",
        ),
        (
            ["compress", "a.png", "--mode", "diffc", "--steps", "2", "--max-bytes", "9"],
            "--max-bytes does not go with --mode diffc",
        ),
        (
            ["compress", "a.png", "--mode", "diffc", "--steps", "2", "--format", "legacy-lite"],
            "--mode diffc writes the layout cod only",
        ),
        (["decompress", "a.cod", "--coded-steps", "-1"], "--coded-steps: expected a whole number, got '-1'"),
        (["compress", "-m", "MODEL", "a.png", "--quality", "0"], "quality must be at least 1, got 0"),
        (["compress", "a.png", "--quality", "1", "--bpp", "0.1"], "--bpp: not allowed with argument --quality"),
        (["compress", "a.png", "--bpp", "0"], "bits per pixel must be a positive number, got 0"),
        (["compress", "a.png", "--max-bytes", "-1"], "expected a positive whole number, got '-1'"),
        (["compress", "-m", "MODEL", "a.png", "--format", "lite"], "invalid choice: 'lite'"),
        (
            ["compress", "-m", "MODEL", "a.png", "--max-pixels", "0"],
            "expected max_pixels to be a whole number from 1 to 134217728",
        ),
        (["decompress", "-m", "MODEL", "a.cod", "--max-pixels", "big"], "expected a whole number, got 'big'"),
    ],
)
def test_wrong_usage_is_one_line_and_does_nothing(cod: Cod, tmp_path: Path, argv: list[str], message: str):
    (tmp_path / "photo").write_text("a file without suffix")
    result = cod(*argv)
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("cod")
    assert ": error: " in result.err
    assert message in result.err
    assert result.err.count("\n") == 1
    assert _files(tmp_path) == {"photo"}


def test_a_missing_model_stops_the_command(monkeypatch, capsys, photo: Path, tmp_path: Path):
    assert main(["compress", "-m", str(tmp_path / "nothing"), str(photo)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("cod compress: error: model ")
    assert "does not exist; give a model folder" in err
    assert _files(tmp_path) == {"photo.png"}


@pytest.mark.parametrize("layout", ["legacy-lite", "legacy-cod"])
def test_files_of_published_tools_are_written_described_and_read(cod: Cod, photo: Path, tmp_path: Path, layout: Layout):
    assert cod("compress", "-m", "MODEL", "photo.png", "--format", layout).status == 0
    data = (tmp_path / "photo.cod").read_bytes()
    assert data == tiny_codec().compress(gradient_image(30, 45), layout=layout)
    assert cod("decompress", "-m", "MODEL", "photo.cod", "-o", "back.png", "--format", layout).status == 0
    decoded = tiny_codec().decompress(tiny_codec().compress(gradient_image(30, 45)))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back.png")), decoded)
    facts = json.loads(cod("info", "photo.cod", "--json", "--format", layout).out)
    assert (facts["width"], facts["height"], facts["model"], facts["format"]) == (45, 30, None, layout)
    assert (
        "model    not named; decompress with the one that compressed\n"
        in cod("info", "photo.cod", "--format", layout).out
    )
    result = cod("decompress", "-m", "MODEL", "photo.cod", "-o", "other.png")
    assert result.status == 1
    assert "name its layout: --format legacy-lite or legacy-cod" in result.err
