import sys
import types
import zlib

import numpy as np
import pytest

from cod_jax import images
from cod_jax.errors import UserError
from cod_jax.input import sources
from cod_jax.input.pipeline import build_train_batches, load_validation_images
from cod_jax.input.source import Source
from tests.input_fixtures import SIZE, colour_of, indices, plain_config, take, write_image, write_shards


def test_the_split_goes_by_the_checksum_of_the_file_name(tmp_path):
    names = [f"photo{index}.png" for index in range(40)]
    for index, name in enumerate(names):
        write_image(tmp_path / ("a" if index % 2 else "b/c") / name, colour_of(index))
    held_out = {index for index, name in enumerate(names) if zlib.crc32(name.encode()) % 4 == 0}
    config = plain_config(tmp_path, validation_modulus=4)
    batches = build_train_batches(config, batch_size=40 - len(held_out), seed=0)
    assert set(indices(batches, 1)[0].tolist()) == set(range(40)) - held_out
    validation = load_validation_images(config, 100)
    assert validation.shape == (len(held_out), SIZE, SIZE, 3)
    assert set(validation[:, 0, 0, 0].tolist()) == held_out


def test_shards_give_the_same_batches_and_split_as_the_folder(colours, tmp_path):
    write_shards(tmp_path / "shards", colours)
    for modulus in (0, 3):
        folder = plain_config(colours, validation_modulus=modulus)
        shards = plain_config(tmp_path / "shards", validation_modulus=modulus)
        np.testing.assert_array_equal(load_validation_images(shards, 9), load_validation_images(folder, 9))
        from_folder = build_train_batches(folder, batch_size=4, seed=0)
        from_shards = build_train_batches(shards, batch_size=4, seed=0)
        from_shards.set_state(from_folder.get_state())
        from_folder.set_state(from_shards.get_state())
        np.testing.assert_array_equal(take(from_shards, 7), take(from_folder, 7))


def test_a_single_shard_can_be_the_source(colours, tmp_path):
    shards = write_shards(tmp_path / "shards", colours)
    batches = build_train_batches(plain_config(tmp_path / "shards" / shards[1].file), batch_size=5, seed=0)
    assert sorted(indices(batches, 1)[0].tolist()) == [5, 6, 7, 8, 9]


def test_shards_without_a_manifest_cannot_be_split(colours, tmp_path):
    write_shards(tmp_path / "shards", colours)
    (tmp_path / "shards" / "manifest.json").unlink()
    assert build_train_batches(plain_config(tmp_path / "shards"), batch_size=4, seed=0).num_images == 12
    with pytest.raises(ValueError, match=r"no manifest\.json.*cod prepare"):
        build_train_batches(plain_config(tmp_path / "shards", validation_modulus=4), batch_size=4, seed=0)


def test_a_damaged_record_is_skipped_and_named(colours, tmp_path):
    shards = write_shards(tmp_path / "shards", colours, per_shard=12)
    path = tmp_path / "shards" / shards[0].file
    content = bytearray(path.read_bytes())
    for name in ("04.png", "05.png"):
        pixels = (colours / name).read_bytes()
        place = content.index(pixels) + len(pixels) // 2
        content[place] ^= 0xFF
    path.write_bytes(content)
    batches = build_train_batches(plain_config(tmp_path / "shards"), batch_size=12, seed=0)
    assert sorted(indices(batches, 1)[0].tolist()) == [0, 1, 2, 3, 6, 6, 6, 7, 8, 9, 10, 11]
    assert sorted(batches.skipped) == ["04.png", "05.png"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "images-00001.array_record").unlink(), "is missing"),
        (lambda folder: (folder / "images-00001.array_record").write_bytes(b"short"), "as in the manifest, got 5"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": "x", "version": 2, "shards": []}'), "'x'"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"00.png",', "")
            ),
            "the 11 images of the manifest, got shards with 12",
        ),
    ],
)
def test_damaged_shards_are_refused(colours, tmp_path, damage, message):
    write_shards(tmp_path / "shards", colours)
    damage(tmp_path / "shards")
    with pytest.raises((ValueError, FileNotFoundError), match=f"{message}.*prepare the images again"):
        sources.open_source(str(tmp_path / "shards"))


def test_a_damaged_shard_without_a_manifest_is_refused(tmp_path):
    (tmp_path / "a.array_record").write_bytes(b"x" * 100)
    for source in (tmp_path, tmp_path / "a.array_record"):
        with pytest.raises(ValueError, match="a shard is damaged"):
            sources.open_source(str(source))


class Numbers(Source):
    """Pictures of one colour each, as many as the argument says."""

    def __init__(self, argument: str):
        super().__init__(f"{argument} numbers")
        self.names = [f"number {index}" for index in range(int(argument))]

    def read(self, index: int) -> bytes:
        return images.encode(np.full((SIZE, SIZE, 3), index, np.uint8), "PNG")


def test_a_source_of_ones_own_is_named_with_its_argument(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_numbers", types.ModuleType("my_numbers"))
    sys.modules["my_numbers"].Numbers = Numbers  # pyright: ignore[reportAttributeAccessIssue]
    source = sources.open_source("my_numbers:Numbers:7")
    assert (source.location, len(source.names)) == ("7 numbers", 7)
    batches = build_train_batches(plain_config("my_numbers:Numbers:7", validation_modulus=0), batch_size=7, seed=0)
    batch = next(batches)
    assert sorted(batch["image"][:, 0, 0, 0].tolist()) == list(range(7))
    with pytest.raises(UserError, match="no module not_there; install not_there or correct the name"):
        sources.open_source("not_there:Numbers")
