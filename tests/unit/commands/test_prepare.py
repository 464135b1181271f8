import hashlib
import io
import json
import os
import signal
import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax import images
from cod_jax.commands.main import main
from cod_jax.input import records, sources, transforms
from cod_jax.input.config import DataConfig
from cod_jax.input.pipeline import build_train_batches, load_validation_images
from tests.storage_fixtures import bucket as bucket
from tests.storage_fixtures import put_folder


@pytest.fixture
def photos(tmp_path):
    """Four photographs, one of them small and one sideways, and two files that are no photographs."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photographs.astronaut()[:96, :150]).save(folder / "astronaut.png")
    Image.fromarray(photographs.coffee()[:80, :60]).save(folder / "more" / "coffee.jpg", exif=exif)
    Image.fromarray(photographs.camera()[:40, :40]).save(folder / "grey.webp", lossless=True)
    Image.fromarray(photographs.chelsea()[:31, :200]).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes((folder / "more" / "coffee.jpg").read_bytes()[:500])
    (folder / "notes.txt").write_text("no photograph")
    return folder


def run(photos, output, *arguments, size=32):
    return main(["prepare", "--source", str(photos), "--output", str(output), "--size", str(size), *arguments])


def read_all(folder):
    source = sources.open_source(str(folder))
    return {name: source.read(index) for index, name in enumerate(source.names)}


def test_photographs_become_shards_with_a_manifest(photos, tmp_path, capsys):
    output = tmp_path / "out" / "shards"
    assert run(photos, output, "--images-per-shard", "2") == 1  # one file cannot be read
    assert sorted(os.listdir(output)) == ["images-00000.array_record", "images-00001.array_record", "manifest.json"]

    manifest = json.loads((output / "manifest.json").read_text())
    assert (manifest["num_images"], manifest["num_skipped"]) == (3, 2)
    assert [shard["names"] for shard in manifest["shards"]] == [["astronaut.png", "grey.webp"], ["more/coffee.jpg"]]
    assert manifest["skipped"]["small.png"] == "200x31 is smaller than 32"
    assert sorted(manifest["skipped"]) == ["broken.jpg", "small.png"]
    for shard in manifest["shards"]:
        content = (output / shard["file"]).read_bytes()
        assert (shard["size_bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())

    printed = capsys.readouterr()
    assert "wrote 3 images" in printed.out
    assert "skipped 1 that are too small and 1 that cannot be read" in printed.out
    assert "small.png: 200x31" in printed.err
    assert "broken.jpg: the picture cannot be read" in printed.err


def test_images_are_upright_resized_and_encoded_as_asked(photos, tmp_path):
    assert run(photos, tmp_path / "png", "--format", "png") == 1
    sizes = {}
    for name, content in read_all(tmp_path / "png").items():
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            sizes[name] = image.size
    assert sizes == {"astronaut.png": (50, 32), "grey.webp": (32, 32), "more/coffee.jpg": (43, 32)}

    assert run(photos, tmp_path / "jpeg", "--quality", "50") == 1
    for name, content in read_all(tmp_path / "jpeg").items():
        assert Image.open(io.BytesIO(content)).format == "JPEG"
        exact = images.to_uint8_rgb(read_all(tmp_path / "png")[name]).astype(int)
        assert 0 < np.abs(images.to_uint8_rgb(content) - exact).mean() < 12


def test_an_image_of_the_right_size_keeps_its_pixels(photos, tmp_path):
    assert run(photos, tmp_path / "out", "--format", "png", size=40) == 1
    pixels = images.to_uint8_rgb(read_all(tmp_path / "out")["grey.webp"])
    np.testing.assert_array_equal(pixels, images.to_uint8_rgb(photos / "grey.webp"))


def test_dangling_links_and_animations_are_skipped_and_named(photos, tmp_path, capsys):
    (photos / "dangling.png").symlink_to("nothing.png")
    frames = [Image.new("L", (40, 40), grey) for grey in (0, 99)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(photos / "still.tif")
    assert run(photos, tmp_path / "out") == 1
    skipped = json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"]
    assert sorted(skipped) == ["broken.jpg", "dangling.png", "moving.gif", "small.png"]
    assert "dangling.png: it is a link to a file that does not exist\n" in capsys.readouterr().err
    assert "still.tif" in read_all(tmp_path / "out")


def test_an_output_below_a_file_is_named(photos, tmp_path, capsys):
    assert run(photos, photos / "notes.txt" / "out") == 2
    assert capsys.readouterr().err.endswith("notes.txt is a file, not a folder; choose another place\n")


def test_too_small_photographs_alone_are_no_failure(photos, tmp_path):
    (photos / "broken.jpg").unlink()
    assert run(photos, tmp_path / "out") == 0


def test_the_result_depends_on_the_photographs_alone(photos, tmp_path):
    for name, threads in (("a", "1"), ("b", "5")):
        run(photos, tmp_path / name, "--threads", threads)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_shards_can_be_trained_on_with_the_split_of_the_folder(photos, tmp_path):
    (photos / "broken.jpg").unlink()
    run(photos, tmp_path / "out")
    for modulus in (0, 2):
        config = DataConfig(source=str(tmp_path / "out"), image_size=32, validation_modulus=modulus)
        batches = build_train_batches(config, batch_size=2, seed=0)
        assert next(batches)["image"].shape == (2, 32, 32, 3)
        num_held_out = len(load_validation_images(config, 9))
        assert batches.num_images + num_held_out == 3
        batches.close()


def test_an_existing_output_is_replaced_only_when_forced(photos, tmp_path, capsys):
    output = tmp_path / "out"
    run(photos, output)
    before = (output / "manifest.json").read_bytes()
    assert run(photos, output, size=40) == 2
    assert "--force" in capsys.readouterr().err
    assert (output / "manifest.json").read_bytes() == before
    assert run(photos, output, "--force", size=40) == 1
    assert json.loads((output / "manifest.json").read_text())["settings"]["size"] == 40


def test_force_does_not_replace_a_folder_of_another_kind(photos, capsys):
    assert run(photos, photos, "--force") == 2
    assert "holds no manifest.json" in capsys.readouterr().err
    assert (photos / "astronaut.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "absent", "--output", "out", "--size", "32"], "absent does not exist; give"),
        (["--source", ".", "--output", "out", "--size", "32"], "give a folder of photographs"),
        (["--source", "photos", "--output", "out", "--size", "1000"], "none of the 5 photographs can be used"),
        (["--source", "photos", "--output", "out", "--size", "0"], "size must be at least 1, got 0"),
        (
            ["--source", "photos", "--output", "out", "--size", "32", "--quality", "0"],
            "quality must be from 1 to 100",
        ),
        (
            ["--source", "photos", "--output", "out", "--size", "32", "--images-per-shard", "0"],
            "per shard must be",
        ),
        (["--source", "photos", "--output", "out", "--size", "many"], "invalid int value"),
        (["--source", "photos"], "--output"),
    ],
)
def test_wrong_usage_writes_nothing_and_says_why_in_one_line(photos, tmp_path, monkeypatch, capsys, arguments, message):
    status = 1 if "none of" in message else 2  # all of them were tried
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if "." in arguments else tmp_path)
    assert main(["prepare", *arguments]) == status
    error = capsys.readouterr().err
    assert error.startswith("cod prepare: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(os.listdir(tmp_path)) == ["empty", "photos"]
    assert os.listdir(tmp_path / "empty") == []


def test_an_interrupted_run_leaves_nothing(photos, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(transforms, "resize_short_edge", interrupt)
    assert run(photos, tmp_path / "out") == 130
    assert capsys.readouterr().err.endswith("cod prepare: error: interrupted\n")
    assert os.listdir(tmp_path) == ["photos"]


def test_sigterm_leaves_nothing(photos, tmp_path, monkeypatch):
    def write_shards(folder, *_):
        (folder / "part").touch()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(records, "write_shards", write_shards)
    assert run(photos, tmp_path / "out") == 143
    assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_written_and_named(photos, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    (photos / "astronaut.png").rename(photos / name)
    (photos / "small.png").rename(photos / ("small-" + name))
    assert run(photos, tmp_path / "out") == 1
    assert name in read_all(tmp_path / "out")
    assert r"small-caf\udce9.png: 200x31" in capsys.readouterr().err


def test_a_quality_of_png_is_refused(photos, tmp_path, capsys):
    assert run(photos, tmp_path / "out", "--format", "png", "--quality", "50") == 2
    assert "--quality has no effect with --format png" in capsys.readouterr().err
    assert run(photos, tmp_path / "out") == 1
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["quality"] == 95


def test_photographs_and_shards_may_be_at_addresses(photos, bucket, tmp_path, capsys):
    put_folder(photos, f"{bucket}/photos")
    assert run(f"{bucket}/photos/", f"{bucket}/shards") == 1
    assert f"wrote 3 images to {bucket}/shards" in capsys.readouterr().out
    assert run(photos, tmp_path / "out") == 1
    capsys.readouterr()
    assert read_all(f"{bucket}/shards") == read_all(tmp_path / "out")
    assert run(photos, f"{bucket}/shards") == 2
    assert f"{bucket}/shards already exists; choose another output or pass --force" in capsys.readouterr().err
    assert run(f"{bucket}/none", tmp_path / "other") == 2
    assert f"{bucket}/none does not exist; give a folder of images" in capsys.readouterr().err
