import pytest

from cod_jax.datasets import places
from tests.storage_fixtures import bucket as bucket
from tests.unit.datasets.test_raw import LAYOUT, find, pictures, write_archive


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


def test_files_are_written_listed_linked_and_removed(folder):
    assert places.names_in(f"{folder}/work") == []
    places.write(f"{folder}/work/a", b"first")
    places.write(f"{folder}/work/a", b"second")
    places.link(f"{folder}/work/a", f"{folder}/work/b")
    assert sorted(places.names_in(f"{folder}/work")) == ["a", "b"]
    places.remove_folder(f"{folder}/work")
    places.remove_folder(f"{folder}/work")
    assert places.names_in(f"{folder}/work") == []


def test_a_file_appears_when_it_is_complete(folder):

    def fail():
        with places.new_file(f"{folder}/work/a") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert places.names_in(f"{folder}/work") == []
    with pytest.raises(FileNotFoundError):
        places.read(f"{folder}/work/a")


def test_archives_at_an_address_are_read_as_local_ones(bucket, tmp_path):
    write_archive(tmp_path / "part_0.tar", {"a.jpg": b"A" * 900})
    write_archive(tmp_path / "part_1.tar.gz", {"b.jpg": b"B" * 900}, "w:gz")
    local = find(tmp_path)
    for name in ("part_0.tar", "part_1.tar.gz"):
        places.write(f"{bucket}/raw/{name}", (tmp_path / name).read_bytes())
    remote = find(f"{bucket}/raw", LAYOUT)
    assert [unit.key for unit in remote] == [unit.key for unit in local]
    assert pictures(remote) == pictures(local)
