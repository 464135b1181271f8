"""A dataset is prepared from and to a server of S3 on this machine."""

import json

import fsspec
import pytest

from cod_jax.input import sources
from tests.dataset_fixtures import prepare
from tests.dataset_fixtures import raw as raw
from tests.storage_fixtures import in_environment
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
    for place in (str(folder), f"{bucket}/datasets/sa1b/32/1.0.0"):
        source = sources.open_source(place)
        assert source.names == ["sa_000000/sa_0.jpg", "sa_000001/sa_1.jpg"]
        assert source.read(1)[:2] == b"\xff\xd8"
    system.pipe_file("bucket/raw/sa_000002.tar", system.cat_file("bucket/raw/sa_000001.tar"))
    assert prepare("sa1b", f"{bucket}/raw", f"{bucket}/datasets", "--partial") == 2
    assert prepare("sa1b", f"{bucket}/raw", f"{bucket}/datasets", "--partial", "--force") == 0
    system.invalidate_cache()
    assert json.loads(system.cat_file("bucket/datasets/sa1b/32/1.0.0/manifest.json"))["num_images"] == 3
