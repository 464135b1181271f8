import gzip
import hashlib
import io
import tarfile
from typing import Literal

import pytest

from cod_jax.datasets import raw

LAYOUT = raw.Layout(
    {"train": r"part_\d\.tar(\.gz)?", "validation": r"validation\.tar"}, {"train": 2}, example="part_0.tar"
)
FOLDER = raw.Layout()


def write_archive(path, members, mode: Literal["w", "w:gz"] = "w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def archives(tmp_path):
    folder = tmp_path / "raw"
    (folder / "below").mkdir(parents=True)
    write_archive(folder / "part_0.tar", {"./a.jpg": b"A" * 900, "./a.json": b"{}", "x/b.JPEG": b"B", "x/._b.jpg": b""})
    write_archive(folder / "below" / "part_1.tar.gz", {"c.jpg": b"C" * 5000}, "w:gz")
    write_archive(folder / "other.tar", {"d.jpg": b"D"})
    return folder


def find(folder, layout=LAYOUT, images_per_shard=2, **options):
    return raw.find_units(str(folder), layout, images_per_shard, **options)


def pictures(units):
    return {name: data for unit in units for name, data in raw.read_pictures(unit)}


def test_pictures_of_archives_are_read_in_place_and_named_after_the_archive(archives):
    (unit,) = find(archives)
    assert (unit.split, unit.name, unit.names) == ("train", "train-00000", ("below/part_1.tar.gz", "part_0.tar"))
    assert pictures([unit]) == {"part_1/c.jpg": b"C" * 5000, "part_0/a.jpg": b"A" * 900, "part_0/b.JPEG": b"B"}


def test_archives_are_put_together_until_they_are_large(archives, monkeypatch):
    monkeypatch.setattr(raw, "_UNIT_BYTES", 1)
    write_archive(archives / "validation.tar", {"v.png": b"V"})
    assert [(unit.name, unit.names) for unit in find(archives)] == [
        ("train-00000", ("below/part_1.tar.gz",)),
        ("train-00001", ("part_0.tar",)),
        ("validation-00000", ("validation.tar",)),
    ]


def test_missing_archives_are_refused_unless_accepted(archives):
    (archives / "part_0.tar").unlink()
    with pytest.raises(ValueError, match=r"expected 2 archives such as part_0\.tar .* got 1; .*--partial"):
        find(archives)
    assert list(pictures(find(archives, partial=True))) == ["part_1/c.jpg"]


def test_without_archives_the_pictures_are_cut_into_units(tmp_path):
    for name in ("train/1.jpg", "train/2.png", "train/3.jpg", "validation/4.jpg", "train/note.txt", "5.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    names = {unit.name: unit.names for unit in find(tmp_path)}
    assert names == {
        "train-00000": ("5.webp", "train/1.jpg"),
        "train-00001": ("train/2.png", "train/3.jpg"),
        "validation-00000": ("validation/4.jpg",),
    }
    assert {unit.split for unit in find(tmp_path, FOLDER)} == {"train"}
    assert pictures(find(tmp_path))["train/2.png"] == b"train/2.png"


def test_the_folder_of_a_split_is_found_at_any_depth(tmp_path):
    for name in ("v7/validation/1", "v7/test/more/2", "v7/train_0/3", "train/train/test", "validation"):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert {unit.split: unit.names for unit in find(tmp_path, images_per_shard=9)} == {
        "test": ("v7/test/more/2.jpg",),
        "train": ("train/train/test.jpg", "v7/train_0/3.jpg", "validation.jpg"),
        "validation": ("v7/validation/1.jpg",),
    }


def test_pictures_below_folders_of_two_splits_are_refused(tmp_path):
    (tmp_path / "validation" / "train").mkdir(parents=True)
    (tmp_path / "validation" / "train" / "1.jpg").touch()
    with pytest.raises(ValueError, match=r"validation/train/1\.jpg: expected one split .* train and validation;"):
        find(tmp_path)
    assert [unit.split for unit in find(tmp_path, FOLDER)] == ["train"]


def test_a_picture_that_is_gone_is_named(tmp_path):
    (tmp_path / "1.jpg").touch()
    units = find(tmp_path, FOLDER)
    (tmp_path / "1.jpg").unlink()
    assert isinstance(pictures(units)["1.jpg"], OSError)


def test_a_folder_without_any_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected archives such as part_0\.tar, or the pictures in them .* got none"):
        find(tmp_path)
    with pytest.raises(ValueError, match=r"expected pictures \(JPEG.*got none"):
        find(tmp_path, FOLDER)


def test_the_same_files_give_the_same_units_and_others_do_not(archives):
    before = find(archives)
    assert find(archives) == before
    # What is done stays done with a newer version.
    names = ("below/part_1.tar.gz", "part_0.tar")
    text = "\n".join(f"{(archives / name).stat().st_size} {name}" for name in names)
    assert before[0].key == hashlib.sha256(text.encode()).hexdigest()
    write_archive(archives / "part_0.tar", {"a.jpg": b"A" * 20_000})
    assert [unit.name for unit in find(archives)] == [unit.name for unit in before]
    assert find(archives)[0].key != before[0].key


def test_the_checksum_of_files_does_not_depend_on_the_units(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    before = raw.checksum(find(tmp_path, FOLDER, 1))
    assert raw.checksum(find(tmp_path, FOLDER, 2)) == before
    (tmp_path / "c.jpg").write_bytes(b"c")
    assert raw.checksum(find(tmp_path, FOLDER, 2)) != before


@pytest.mark.parametrize("length", [700, 1024, 3 * 512, -1024])
def test_an_archive_that_ends_early_is_damaged_wherever_it_ends(archives, length):
    path = archives / "part_0.tar"
    write_archive(path, {f"{index}.jpg": bytes([65 + index]) * 512 for index in range(3)})
    with tarfile.open(path) as archive:
        size = archive.getmembers()[-1].offset_data + 512
    path.write_bytes(path.read_bytes()[: size if length < 0 else length])
    found = pictures(find(archives))
    assert isinstance(found["part_0.tar"], raw.DamagedArchiveError)
    assert found["part_1/c.jpg"] == b"C" * 5000


def test_damaged_compression_is_damage(archives):
    path = archives / "below" / "part_1.tar.gz"
    content = bytearray(path.read_bytes())
    content[30] ^= 0xFF
    path.write_bytes(content)
    assert isinstance(pictures(find(archives))["below/part_1.tar.gz"], raw.DamagedArchiveError)
    path.write_bytes(gzip.compress(b"no archive" * 999))
    assert isinstance(pictures(find(archives))["below/part_1.tar.gz"], raw.DamagedArchiveError)
