from pathlib import Path

import fsspec
import pytest

from cod_jax import storage
from cod_jax.errors import UserError
from cod_jax.storage import access, mirror
from tests.storage_fixtures import bucket as bucket

MARKER = "plan.json"


def _content(address: str) -> dict[str, bytes]:
    return {name: storage.read_bytes(f"{address}/{name}") for name in storage.list_files(address)}


def test_a_working_copy_reaches_its_address_at_the_end(bucket: str):
    with storage.working_copy(f"{bucket}/results/", MARKER) as folder:
        assert not folder.exists()
        (folder / "deep").mkdir(parents=True)
        (folder / MARKER).write_text("1")
        (folder / "deep" / "a").write_text("1")
        assert not storage.list_files(f"{bucket}/results")
    assert not folder.exists()
    assert _content(f"{bucket}/results") == {MARKER: b"1", "deep/a": b"1"}
    with storage.working_copy(f"{bucket}/results", MARKER) as folder:
        (folder / "deep" / "a").rename(folder / "b")
    assert _content(f"{bucket}/results") == {MARKER: b"1", "b": b"1"}


def test_a_working_copy_that_failed_is_there_the_next_time(bucket: str, caplog):
    with pytest.raises(KeyError), storage.working_copy(f"{bucket}/results", MARKER) as folder:  # noqa: PT012
        folder.mkdir()
        (folder / MARKER).write_text("1")
        raise KeyError
    assert f"what is done so far is in {folder}; the same command goes on with it" in caplog.text
    assert not storage.list_files(f"{bucket}/results")
    with storage.working_copy(f"{bucket}/results", MARKER) as again:
        assert (again, (again / MARKER).read_text()) == (folder, "1")
        with (
            pytest.raises(UserError, match="memory://bucket/results is in use by another process"),
            storage.working_copy(f"{bucket}/results", MARKER),
        ):
            pass
    assert _content(f"{bucket}/results") == {MARKER: b"1"}


def test_local_folders_are_worked_in_as_they_are(tmp_path: Path):
    with storage.working_copy(tmp_path / "results", MARKER) as folder:
        assert folder == tmp_path / "results"


def test_a_mirror_copies_what_grows(bucket: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(mirror, "_MIRROR_SECONDS", 0.01)
    system = fsspec.filesystem("memory")
    system.pipe_file("/bucket/run/train.log", b"of another host\n")
    system.pipe_file("/bucket/run/checkpoints/1/data", b"large")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "other").touch()
    (tmp_path / "short.log").touch()
    system.pipe_file("/bucket/run/short.log", b"1")
    written = []
    put = system.put_file
    monkeypatch.setattr(system, "put_file", lambda local, place: (put(local, place), written.append(Path(local).name)))
    with storage.Mirror(tmp_path, f"{bucket}/run", lambda name: name.parts[0] != "checkpoints"):
        with (tmp_path / "train.log").open("a") as log:
            log.write("of this one\n")
        while "train.log" not in written:
            pass
        with (tmp_path / "train.log").open("a") as log:
            log.write("end\n")
    assert _content(f"{bucket}/run") == {
        "checkpoints/1/data": b"large",
        "short.log": b"1",
        "train.log": b"of another host\nof this one\nend\n",
    }


def test_a_mirror_that_fails_lets_the_run_go_on(bucket: str, tmp_path: Path, monkeypatch, caplog):
    (tmp_path / "train.log").write_text("1")
    with monkeypatch.context() as patch:
        patch.setattr(access, "_PATIENCE_SECONDS", -1.0)
        patch.setattr(fsspec.filesystem("memory"), "put_file", lambda *_: 1 / 0)
        with storage.Mirror(tmp_path, f"{bucket}/run", lambda name: True) as kept:
            kept.copy()
    assert "not all of the log is copied to its address: memory://bucket/run/train.log cannot be used" in caplog.text
    kept.copy()
    assert _content(f"{bucket}/run") == {"train.log": b"1"}
