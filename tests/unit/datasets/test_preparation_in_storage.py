"""Datasets are prepared from and to servers of storage on this machine, and read there."""

import json

import fsspec
import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.input import sources
from cod_jax.input.pipeline import build_train_batches
from tests.dataset_fixtures import prepare
from tests.dataset_fixtures import raw as raw
from tests.input_fixtures import plain_config, take
from tests.storage_fixtures import gcs_server as gcs_server
from tests.storage_fixtures import in_environment, put_folder
from tests.storage_fixtures import s3_server as s3_server

pytest.importorskip("apache_beam", reason="apache-beam is not installed; it comes with the extra beam")


@pytest.fixture
def bucket(s3_server, tmp_path):
    """Return the address of an empty bucket."""
    with in_environment(s3_server, tmp_path / "cache"):
        yield s3_server.address


@pytest.mark.slow
def test_archives_and_datasets_may_be_in_storage(raw, bucket, tmp_path, capsys):
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.put(f"{raw / 'sa1b'}/", "bucket/raw/", recursive=True)
    for _ in range(2):
        assert prepare("sa1b", f"{bucket}/raw", f"{bucket}/datasets", "--partial") == 0
    assert "there was nothing to do" in capsys.readouterr().out
    folder = tmp_path / "1.0.0"
    system.invalidate_cache()
    assert [name.split("/")[1] for name in system.find("bucket/datasets/sa1b/32")] == 4 * ["datasets"]
    system.get("bucket/datasets/sa1b/32/1.0.0/", str(folder), recursive=True)
    assert json.loads((folder / "manifest.json").read_text())["num_images"] == 2
    source = sources.open_source(str(folder))
    assert source.names == ["sa_000000/sa_0.jpg", "sa_000001/sa_1.jpg"]
    assert source.read(1)[:2] == b"\xff\xd8"
    system.pipe_file("bucket/raw/sa_000002.tar", system.cat_file("bucket/raw/sa_000001.tar"))
    assert prepare("sa1b", f"{bucket}/raw", f"{bucket}/datasets", "--partial") == 2
    assert prepare("sa1b", f"{bucket}/raw", f"{bucket}/datasets", "--partial", "--force") == 0
    system.invalidate_cache()
    assert json.loads(system.cat_file("bucket/datasets/sa1b/32/1.0.0/manifest.json"))["num_images"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3_server", "gcs_server"])
def test_the_trainer_reads_datasets_in_storage(name: str, raw, tmp_path, request):
    assert prepare("sa1b", raw / "sa1b", tmp_path / "datasets", "--partial") == 0
    folder = tmp_path / "datasets" / "sa1b" / "32" / "1.0.0"
    local = sources.open_source(str(folder))
    server = request.getfixturevalue(name)
    with in_environment(server, tmp_path / "cache"):
        address = f"{server.address}/datasets/sa1b/32/1.0.0"
        put_folder(folder, address)
        for place in (address, f"tfds:{address}", f"tfds:{address}:train[1:]"):
            first = 1 if place.endswith("]") else 0
            source = sources.open_source(place)
            assert source.names == local.names[first:]
            assert source.read(0) == local.read(first)
        assert sources.open_source(address).identity([]) == local.identity([])
        one, other = (
            take(build_train_batches(plain_config(f"mix:1={place}"), batch_size=2, seed=0), 3)
            for place in (address, folder)
        )
        np.testing.assert_array_equal(one, other)
        with pytest.raises(UserError, match="the split 'test' cannot be read"):
            sources.open_source(f"tfds:{address}:test")
