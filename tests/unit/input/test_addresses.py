"""Pictures and shards at addresses of remote storage."""

import contextlib
import threading

import fsspec
import numpy as np
import pytest

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.input.pipeline import build_train_batches, load_validation_images
from cod_jax.input.sources import open_source
from cod_jax.storage import StorageError, access
from tests.input_fixtures import plain_config, take, write_shards
from tests.storage_fixtures import bucket as bucket
from tests.storage_fixtures import gcs_server as gcs_server
from tests.storage_fixtures import in_environment, put_folder
from tests.storage_fixtures import s3_server as s3_server


def _batches(source: object) -> list[np.ndarray]:
    config = plain_config(source, validation_modulus=3)
    with contextlib.closing(build_train_batches(config, batch_size=4, seed=0)) as batches:
        return [*take(batches, 5), load_validation_images(config, 9)]


def _assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def test_pictures_at_an_address_give_the_batches_of_the_folder(bucket: str, colours):
    put_folder(colours, f"{bucket}/photos")
    fsspec.filesystem("memory").pipe_file("/bucket/photos/.hidden/a.png", b"")
    _assert_same(_batches(f"{bucket}/photos/"), _batches(colours))


def test_shards_at_an_address_give_the_batches_of_the_folder(bucket: str, colours, tmp_path):
    shards = write_shards(tmp_path / "shards", colours)
    put_folder(tmp_path / "shards", f"{bucket}/shards")
    _assert_same(_batches(f"{bucket}/shards"), _batches(colours))
    one = open_source(f"{bucket}/shards/{shards[1].file}")
    assert list(one.names) == shards[1].names


def test_a_run_whose_pictures_moved_to_an_address_goes_on(bucket: str, colours):
    put_folder(colours, f"{bucket}/photos")
    before = build_train_batches(plain_config(colours), batch_size=4, seed=0)
    after = build_train_batches(plain_config(f"{bucket}/photos"), batch_size=4, seed=0)
    after.set_state(before.get_state())
    system = fsspec.filesystem("memory")
    system.pipe_file(f"/bucket/photos/{after.source.names[0]}", b"another picture")
    changed = build_train_batches(plain_config(f"{bucket}/photos"), batch_size=4, seed=0)
    with pytest.raises(UserError, match="replaced by others of the same names"):
        changed.set_state(before.get_state())


def test_storage_that_fails_stops_the_run_and_a_picture_that_is_gone_does_not(bucket: str, colours, monkeypatch):
    put_folder(colours, f"{bucket}/photos")
    config = plain_config(f"{bucket}/photos", num_threads=0)
    batches = build_train_batches(config, batch_size=4, seed=0)
    system = fsspec.filesystem("memory")
    gone = batches.source.names[0]
    system.rm_file(f"/bucket/photos/{gone}")
    take(batches, 3)
    assert f"{bucket}/photos/{gone} does not exist" in batches.skipped[gone]
    monkeypatch.setattr(access, "_PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(system, "cat_file", lambda place: 1 / 0)
    with pytest.raises(StorageError, match=r"memory://bucket/photos/\S+ cannot be used \(ZeroDivisionError"):
        take(batches, 1)
    assert list(batches.skipped) == [gone]


def test_an_address_without_pictures_is_named(bucket: str, caplog):
    with pytest.raises(FileNotFoundError, match="memory://bucket/none does not exist; give a folder of images"):
        open_source(f"{bucket}/none")
    fsspec.filesystem("memory").pipe_file("/bucket/other/photo.heic", b"")
    with pytest.raises(UserError, match=rf"memory://bucket/other holds no {files.IMAGE_FORMATS} files and no"):
        open_source(f"{bucket}/other")
    assert "memory://bucket/other: left out 1: photo.heic: not a kind of picture that is read" in caplog.text


def test_a_changed_shard_is_refused(bucket: str, colours, tmp_path):
    shards = write_shards(tmp_path / "shards", colours)
    put_folder(tmp_path / "shards", f"{bucket}/shards")
    fsspec.filesystem("memory").pipe_file(f"/bucket/shards/{shards[0].file}", b"other")
    with pytest.raises(UserError, match=rf"{shards[0].file}: expected \d+ bytes, as in the manifest, got 5"):
        open_source(f"{bucket}/shards")
    fsspec.filesystem("memory").rm_file(f"/bucket/shards/{shards[0].file}")
    with pytest.raises(FileNotFoundError, match=rf"{shards[0].file} is missing, but the manifest lists it"):
        open_source(f"{bucket}/shards")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3_server", "gcs_server"])
def test_servers_give_the_batches_of_the_folder(name: str, colours, tmp_path, request):
    server = request.getfixturevalue(name)
    write_shards(tmp_path / "shards", colours)
    with in_environment(server, tmp_path / "cache"):
        for folder in (colours, tmp_path / "shards"):
            put_folder(folder, f"{server.address}/data/{folder.name}")
            _assert_same(_batches(f"{server.address}/data/{folder.name}"), _batches(colours))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3_server", "gcs_server"])
def test_reading_goes_on_after_an_outage(name: str, colours, tmp_path, request):
    server = request.getfixturevalue(name)
    write_shards(tmp_path / "shards", colours)
    with in_environment(server, tmp_path / "cache"):
        sources = []
        for folder in (colours, tmp_path / "shards"):
            put_folder(folder, f"{server.address}/{folder.name}")
            sources.append(open_source(f"{server.address}/{folder.name}"))
        server.stop()
        back = threading.Timer(10, server.start)
        back.start()
        for source in sources:
            assert source.read(7) == (colours / "07.png").read_bytes()
        back.join()
