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
    assert f"what is done so far is in {folder}; the same command resumes" in caplog.text
    assert not storage.list_files(f"{bucket}/results")
    with storage.working_copy(f"{bucket}/results", MARKER) as again:
        assert (again, (again / MARKER).read_text()) == (folder, "1")
        with (
            pytest.raises(UserError, match="memory://bucket/results is in use by another process"),
            storage.working_copy(f"{bucket}/results", MARKER),
        ):
            pass
    assert _content(f"{bucket}/results") == {MARKER: b"1"}


def _write(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / MARKER).write_text(text)


def _work(address: str, text: str) -> None:
    with storage.working_copy(address, MARKER) as folder:
        _write(folder, text)


def _fail(address: str, text: str = "") -> Path:
    """Work that ends in an error, after it has written a text, if there is one."""
    with pytest.raises(KeyError), storage.working_copy(address, MARKER) as folder:  # noqa: PT012
        if text:
            _write(folder, text)
        raise KeyError
    return folder


@pytest.mark.parametrize("is_there", [False, True])
def test_an_error_before_anything_is_written_leaves_nothing_and_says_nothing(bucket: str, caplog, is_there: bool):
    if is_there:
        _work(f"{bucket}/results", "1")
    assert not _fail(f"{bucket}/results").exists()
    assert caplog.text == ""


def test_what_an_earlier_call_has_left_outlives_an_error_before_anything_is_written(bucket: str):
    folder = _fail(f"{bucket}/results", "1")
    assert _fail(f"{bucket}/results") == folder
    assert (folder / MARKER).read_text() == "1"


def test_a_working_copy_of_what_was_replaced_meanwhile_is_refused(bucket: str):
    _work(f"{bucket}/results", "1")
    folder = _fail(f"{bucket}/results", "22")
    # As long as the address is what it was, the work goes on, and so it does when the marker is already there.
    assert _fail(f"{bucket}/results", "333") == folder
    fsspec.filesystem("memory").pipe_file(f"/bucket/results/{MARKER}", b"333")
    assert _fail(f"{bucket}/results", "4444") == folder
    fsspec.filesystem("memory").pipe_file(f"/bucket/results/{MARKER}", b"of another machine")
    with (
        pytest.raises(UserError, match=rf"bucket/results has got another {MARKER} .*; choose .* or remove that folder"),
        storage.working_copy(f"{bucket}/results", MARKER),
    ):
        pass
    assert _content(f"{bucket}/results") == {MARKER: b"of another machine"}
    assert (folder / MARKER).read_text() == "4444"


def test_a_working_copy_begun_at_an_empty_address_does_not_replace_what_came_there(bucket: str):
    _fail(f"{bucket}/results", "1")
    fsspec.filesystem("memory").pipe_file(f"/bucket/results/{MARKER}", b"2")
    with pytest.raises(UserError, match=f"another {MARKER}"), storage.working_copy(f"{bucket}/results", MARKER):
        pass


def test_an_upload_that_failed_resumes(bucket: str, monkeypatch, caplog):
    _work(f"{bucket}/results", "1")
    monkeypatch.setattr(access, "_PATIENCE_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(fsspec.filesystem("memory"), "put_file", lambda *_: 1 / 0)
        with pytest.raises(UserError, match="cannot be used"), storage.working_copy(f"{bucket}/results", MARKER) as one:
            (one / "a").write_text("2")
    assert "the same command resumes" in caplog.text
    fsspec.filesystem("memory").pipe_file("/bucket/results/a", b"")
    assert MARKER not in storage.list_files(f"{bucket}/results")
    with storage.working_copy(f"{bucket}/results", MARKER):
        pass
    assert _content(f"{bucket}/results") == {MARKER: b"1", "a": b"2"}


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
