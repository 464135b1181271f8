"""Builders and pipelines with the real local runner of Apache Beam, in this process."""

import hashlib
import io
import json
import os
import shutil

import pytest
from PIL import Image

from cod_jax.datasets.raw import Layout, find_units
from cod_jax.input import sources
from cod_jax.input.config import DataConfig
from cod_jax.input.pipeline import build_train_batches
from configs import presets
from tests.dataset_fixtures import NUM, piece, prepare
from tests.dataset_fixtures import raw as raw

pytest.importorskip("apache_beam", reason="apache-beam is not installed; it comes with the extra beam")


def content(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """A dataset of the folder."""
    output = tmp_path_factory.mktemp("datasets")
    assert prepare("folder", raw / "folder", output, "--images-per-shard", "4") == 1  # one cannot be read
    return output / "photos" / "32" / "1.0.0"


def test_a_folder_becomes_a_dataset_with_exact_counts_and_checksums(prepared):
    about = manifest(prepared)
    assert (about["num_images"], about["num_too_small"], about["damaged"]) == (NUM, 1, {})
    assert list(about["skipped"]) == ["broken.jpg"]
    assert [len(shard["names"]) for shard in about["shards"]] == [4, 4, 4]
    for shard in about["shards"]:
        data = (prepared / shard["file"]).read_bytes()
        assert (shard["size_bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert os.listdir(prepared.parent) == ["1.0.0"]  # nothing is left of the work
    assert sorted(os.listdir(prepared.parents[2])) == ["photos"]


def test_the_trainer_reads_it_under_the_names_of_the_files(prepared, raw):
    for place in (f"tfds:{prepared}", str(prepared)):
        source = sources.open_source(place)
        assert source.names == [f"{index:02d}.jpg" for index in range(NUM)]
    assert Image.open(io.BytesIO(source.read(3))).size == (40, 32)
    for modulus in (0, 3):
        from_folder = sources.split_by_name(sources.open_source(str(raw / "folder")), modulus)[1]
        from_dataset = sources.split_by_name(source, modulus)[1]
        kept = {sources.open_source(str(raw / "folder")).names[index] for index in from_folder} - {
            "broken.jpg",
            "small.jpg",
        }
        assert {source.names[index] for index in from_dataset} == kept
    batches = build_train_batches(
        DataConfig(source=str(prepared), image_size=32, crop="center", validation_modulus=0), batch_size=NUM, seed=0
    )
    assert next(batches)["image"].shape == (NUM, 32, 32, 3)
    assert not batches.skipped
    batches.close()


def test_a_shard_that_changed_is_refused(prepared, tmp_path):
    copied = shutil.copytree(prepared, tmp_path / "1.0.0")
    shard = next(copied.glob("*-train.*"))
    shard.write_bytes(shard.read_bytes() + b"\0" * 10)
    with pytest.raises(ValueError, match=r"expected \d+ bytes, as in the manifest"):
        sources.open_source(str(copied))


def test_again_there_is_nothing_to_do(prepared, raw, capsys):
    before = content(prepared)
    times = {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()}
    assert prepare("folder", raw / "folder", prepared.parents[2], "--images-per-shard", "4") == 1
    assert "is made of these files already" in capsys.readouterr().out
    assert content(prepared) == before
    assert {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()} == times


def test_another_length_of_shards_is_named(prepared, raw, capsys):
    before = content(prepared)
    assert prepare("folder", raw / "folder", prepared.parents[2], "--images-per-shard", "5") == 2
    assert f"{prepared} was made with --images-per-shard 4, not 5; pass --force" in capsys.readouterr().err
    assert content(prepared) == before


def test_other_files_are_named(prepared, raw, tmp_path, capsys):
    source = shutil.copytree(raw / "folder", tmp_path / "source")
    (source / "12.jpg").write_bytes(piece(12))
    assert prepare("folder", source, prepared.parents[2], "--images-per-shard", "4") == 2
    assert f"was made of other files than {source} holds now; pass --force" in capsys.readouterr().err


def test_datasets_of_earlier_versions_are_recognised(prepared, raw, tmp_path, capsys):
    folder = shutil.copytree(prepared, tmp_path / "photos" / "32" / "1.0.0")
    about = manifest(folder)
    del about["settings"]["images_per_shard"]
    units = find_units(str(raw / "folder"), Layout(), 4)
    about["raw_sha256"] = hashlib.sha256(json.dumps([[unit.name, unit.key] for unit in units]).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(about))
    assert prepare("folder", raw / "folder", tmp_path, "--images-per-shard", "4") == 1
    assert "is made of these files already" in capsys.readouterr().out
    assert prepare("folder", raw / "folder", tmp_path, "--images-per-shard", "5") == 2
    assert "holds now, or cut into other shards; pass --force" in capsys.readouterr().err


@pytest.mark.slow
def test_other_files_need_force(raw, tmp_path, capsys):
    source = shutil.copytree(raw / "folder", tmp_path / "source")
    (source / "broken.jpg").unlink()
    assert prepare("folder", source, tmp_path / "out") == 0
    folder = tmp_path / "out" / "photos" / "32" / "1.0.0"
    (source / "12.jpg").write_bytes(piece(12))
    assert prepare("folder", source, tmp_path / "out") == 2
    assert "was made of other files" in capsys.readouterr().err
    assert manifest(folder)["num_images"] == NUM
    assert prepare("folder", source, tmp_path / "out", "--force") == 0
    assert manifest(folder)["num_images"] == NUM + 1


def test_a_run_that_fails_keeps_what_is_done_and_the_next_one_goes_on(prepared, raw, tmp_path, capsys, monkeypatch):
    from cod_jax.datasets import pipeline

    real, converted = pipeline.convert, []

    def convert(unit, *arguments, **options):
        if fails and unit.number == 1:
            raise OSError("the network is down")
        converted.append(unit.number)
        return real(unit, *arguments, **options)

    monkeypatch.setattr(pipeline, "convert", convert)
    fails = True
    assert prepare("folder", raw / "folder", tmp_path, "--images-per-shard", "4") == 1
    assert "the network is down" in capsys.readouterr().err
    assert not (tmp_path / "photos" / "32" / "1.0.0").exists()
    done = set(converted)
    converted.clear()
    fails = False
    assert prepare("folder", raw / "folder", tmp_path, "--images-per-shard", "4") == 1
    assert set(converted) == {0, 1, 2, 3} - done
    assert content(tmp_path / "photos" / "32" / "1.0.0") == content(prepared)


def test_the_published_datasets_are_prepared_and_mixed(raw, tmp_path, monkeypatch):
    for name in ("imagenet21k", "openimages", "sa1b"):
        assert prepare(name, raw / name, tmp_path, "--partial") == 0
    names = manifest(tmp_path / "imagenet21k" / "32" / "1.0.0")["shards"][0]["names"]
    assert names[:2] == ["n00000000/n00000000_0.JPEG", "n00000000/n00000000_1.JPEG"]
    # As TFDS_DATA_DIR sets it, which is read once.
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    sizes = {
        place: len(sources.open_source(f"tfds:{place}").names)
        for place in ("imagenet21k/32", "openimages/32", "openimages/32:validation", "sa1b/32")
    }
    assert sizes == {"imagenet21k/32": 9, "openimages/32": 2, "openimages/32:validation": 1, "sa1b/32": 2}
    location = presets.mixture(32, presets.DATASETS)
    batches = build_train_batches(
        DataConfig(source=location, image_size=32, crop="center", validation_modulus=0), batch_size=8, seed=0
    )
    assert next(batches)["image"].shape == (8, 32, 32, 3)
    assert {name.partition("/")[0] for name in batches.source.names} == {"0", "1", "2"}
    batches.close()


def test_missing_archives_are_refused(raw, tmp_path, capsys):
    assert prepare("sa1b", raw / "sa1b", tmp_path) == 2
    assert "expected 1000 archives such as sa_000000.tar" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_damaged_archives_stop_the_preparation_unless_accepted(raw, tmp_path, capsys):
    source = shutil.copytree(raw / "sa1b", tmp_path / "source")
    archive = source / "sa_000001.tar"
    archive.write_bytes(archive.read_bytes()[:600])
    assert prepare("sa1b", source, tmp_path / "out", "--partial") == 1
    assert "1 archives are damaged (sa_000001.tar:" in capsys.readouterr().err
    assert not (tmp_path / "out" / "sa1b" / "32" / "1.0.0").exists()
    assert prepare("sa1b", source, tmp_path / "out", "--partial", "--skip-damaged") == 1
    about = manifest(tmp_path / "out" / "sa1b" / "32" / "1.0.0")
    assert (about["num_images"], list(about["damaged"])) == (1, ["sa_000001.tar"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "png"], "expected --format jpeg with --dataset"),
        (["--quality", "0"], "expected quality from 1 to 100, got 0"),
        (["--size", "0"], "expected size to be at least 1, got 0"),
        (["--images-per-shard", "0"], "expected --images-per-shard to be at least 1"),
    ],
)
def test_wrong_usage_is_refused(raw, tmp_path, capsys, options, message):
    assert prepare("folder", raw / "folder", tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_no_usable_picture_is_an_error(raw, tmp_path, capsys):
    assert prepare("folder", raw / "folder", tmp_path, size=400) == 1
    assert "none of the pictures can be used (broken.jpg:" in capsys.readouterr().err
