import hashlib
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax import images
from cod_jax.input import sources
from tests.unit.datasets.test_raw import FOLDER, find, write_archive

convert = pytest.importorskip("cod_jax.datasets.convert", reason="tensorflow-datasets is not installed")
SETTINGS = convert.Settings(32, 95)


@pytest.fixture
def folder(tmp_path):
    """Three photographs, one of them small, and one that is cut off."""
    folder = tmp_path / "raw"
    folder.mkdir()
    Image.fromarray(photographs.astronaut()[:96, :150]).save(folder / "1.png")
    Image.fromarray(photographs.coffee()[:80, :60]).save(folder / "2.jpg", quality=98)
    Image.fromarray(photographs.chelsea()[:31, :200]).save(folder / "3.png")
    (folder / "4.jpg").write_bytes((folder / "2.jpg").read_bytes()[:900])
    return folder


def test_a_unit_becomes_a_shard_with_a_description(folder, tmp_path):
    (unit,) = find(folder, FOLDER, 9)
    work = tmp_path / "work"
    done = convert.convert(unit, SETTINGS, str(work), num_threads=2)
    assert (done.shard.names, done.num_too_small, list(done.unreadable), done.damaged) == (
        ["1.png", "2.jpg"],
        1,
        ["4.jpg"],
        {},
    )
    assert "cannot be read" in done.unreadable["4.jpg"]
    assert sorted(path.name for path in work.iterdir()) == ["train-00000.array_record", "train-00000.json"]
    content = (work / "train-00000.array_record").read_bytes()
    assert (done.shard.size_bytes, done.shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert convert.read_done(unit, SETTINGS, str(work)) == done


def test_a_record_holds_the_shrunken_picture_and_its_name(folder, tmp_path):
    (unit,) = find(folder, FOLDER, 9)
    convert.convert(unit, SETTINGS, str(tmp_path / "work"))
    records = sources.open_source(str(tmp_path / "work" / "train-00000.array_record"))
    example = convert.features().deserialize_example_np(records.read(1))
    assert example["name"] == b"2.jpg"
    expected = Image.open(folder / "2.jpg").resize((32, 43), Image.Resampling.LANCZOS)
    assert np.abs(example["image"].astype(int) - np.array(expected)).mean() < 3


def test_what_is_done_is_not_done_again(folder, tmp_path):
    (unit,) = find(folder, FOLDER, 9)
    done = convert.convert(unit, SETTINGS, str(tmp_path / "work"))
    for path in folder.iterdir():
        path.unlink()
    assert convert.convert(unit, SETTINGS, str(tmp_path / "work")) == done
    assert convert.read_done(unit, convert.Settings(64, 95), str(tmp_path / "work")) is None


def test_a_damaged_archive_keeps_what_could_be_read_and_is_tried_again(folder, tmp_path):
    archive = tmp_path / "archives" / "part_0.tar"
    archive.parent.mkdir()
    write_archive(archive, {name: (folder / name).read_bytes() for name in ("1.png", "2.jpg")})
    whole = archive.read_bytes()
    with tarfile.open(archive) as members:
        archive.write_bytes(whole[: members.getmember("2.jpg").offset_data + 10])
    (unit,) = find(archive.parent, partial=True)
    done = convert.convert(unit, SETTINGS, str(tmp_path / "work"))
    assert (done.shard.names, list(done.damaged)) == (["part_0/1.png"], ["part_0.tar"])
    archive.write_bytes(whole)
    done = convert.convert(unit, SETTINGS, str(tmp_path / "work"))
    assert (done.shard.names, done.damaged) == (["part_0/1.png", "part_0/2.jpg"], {})


def test_a_description_that_is_damaged_is_named(folder, tmp_path):
    (unit,) = find(folder, FOLDER, 9)
    (tmp_path / "train-00000.json").write_text(json.dumps({"key": 1}))
    with pytest.raises(ValueError, match=r"train-00000\.json is damaged .* remove it"):
        convert.read_done(unit, SETTINGS, str(tmp_path))


def test_the_fields_of_a_record_have_an_order():
    # Without one it would be that of a table, which another process has in another order.
    record = convert.as_example("a.jpg", images.encode(photographs.chelsea()[:20, :20], "jpeg"))
    assert record.index(b"image") < record.index(b"name")


def test_names_that_are_no_text_are_kept():
    name = b"caf\xe9.jpg".decode(errors="surrogateescape")
    image = images.encode(photographs.chelsea()[:20, :20], "jpeg")
    assert convert.features().deserialize_example_np(convert.as_example(name, image))["name"] == b"caf\xe9.jpg"
