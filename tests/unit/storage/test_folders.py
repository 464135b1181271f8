import os
from pathlib import Path

import fsspec
import pytest

from cod_jax import files, storage
from cod_jax.errors import UserError
from cod_jax.storage import access
from tests.storage_fixtures import bucket as bucket
from tests.storage_fixtures import gcs_server as gcs_server
from tests.storage_fixtures import in_environment
from tests.storage_fixtures import s3_server as s3_server

MARKER = "model.json"


def _write(address: str, content: dict[str, bytes], **options) -> None:
    with storage.new_directory(address, marker=MARKER, **options) as folder:
        for name, data in content.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_comes_back_as_it_was_written(bucket: str):
    content = {MARKER: b"{}", "weights.safetensors": bytes(range(100))}
    _write(f"{bucket}/models/lite", content)
    copy = storage.fetch(f"{bucket}/models/lite/", [MARKER])
    assert copy.name == "lite"
    assert _content(copy) == content
    # A `Path` keeps one slash of two.
    assert storage.fetch(Path(f"{bucket}/models/lite"), [MARKER]) == copy


def test_the_marker_is_written_last_and_removed_first(bucket: str, monkeypatch):
    _write(f"{bucket}/m", {MARKER: b"{}", "a": b"1", "z": b"1", "gone": b"1"})
    system, order = fsspec.filesystem("memory"), []
    put, remove = system.put_file, system.rm_file
    monkeypatch.setattr(system, "put_file", lambda local, place: (order.append(f"+{place}"), put(local, place)))
    monkeypatch.setattr(system, "rm_file", lambda place: (order.append(f"-{place}"), remove(place)))
    _write(f"{bucket}/m", {MARKER: b"{}", "a": b"2", "z": b"2"}, force=True)
    assert [step.replace("/bucket/m/", "") for step in order] == [f"-{MARKER}", "+a", "+z", "-gone", f"+{MARKER}"]
    assert _content(storage.fetch(f"{bucket}/m", [MARKER])) == {MARKER: b"{}", "a": b"2", "z": b"2"}


def test_a_changed_folder_gets_another_place_so_that_readers_keep_theirs(bucket: str):
    _write(f"{bucket}/m", {MARKER: b"1"})
    first = storage.fetch(f"{bucket}/m", [MARKER])
    _write(f"{bucket}/m", {MARKER: b"2"}, force=True)
    assert _content(storage.fetch(f"{bucket}/m", [MARKER])) == {MARKER: b"2"}
    assert _content(first) == {MARKER: b"1"}


def test_an_existing_folder_is_replaced_only_by_force_and_only_with_its_marker(bucket: str):
    _write(f"{bucket}/m", {MARKER: b"1"})
    with pytest.raises(FileExistsError, match=r"memory://bucket/m already exists; .* --force"):
        storage.check_new_directory(f"{bucket}/m", marker=MARKER)
    assert storage.check_new_directory(f"{bucket}/m", force=True, marker=MARKER)
    assert not storage.check_new_directory(f"{bucket}/other", marker=MARKER)
    with pytest.raises(FileExistsError, match=r"holds files but no compiled\.json"):
        storage.check_new_directory(f"{bucket}/m", force=True, marker="compiled.json")


def test_a_failed_block_writes_nothing(bucket: str):
    with pytest.raises(FileNotFoundError), storage.new_directory(f"{bucket}/m", marker=MARKER) as folder:
        (folder / "none").rename(folder / MARKER)
    assert not storage.check_new_directory(f"{bucket}/m")


def test_storage_that_fails_for_a_while_is_asked_again(bucket: str, monkeypatch):
    _write(f"{bucket}/m", {MARKER: b"1"})
    system, failures = fsspec.filesystem("memory"), [OSError("503"), ConnectionError("reset")]
    get = system.get_file

    def fails_twice(*arguments):
        if failures:
            raise failures.pop()
        return get(*arguments)

    monkeypatch.setattr(system, "get_file", fails_twice)
    assert _content(storage.fetch(f"{bucket}/m", [MARKER])) == {MARKER: b"1"}
    assert not failures


def test_storage_that_does_not_come_back_is_given_up(bucket: str, monkeypatch):
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr(fsspec.filesystem("memory"), "ls", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"memory://bucket/m cannot be used \(ZeroDivisionError: division by zero\)"):
        storage.fetch(f"{bucket}/m", [MARKER])
    assert next(clock) == 225


def test_what_is_not_allowed_is_asked_for_once(bucket: str, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise OSError("Forbidden: bucket/m")

    asked: list[int] = []
    monkeypatch.setattr(fsspec.filesystem("memory"), "ls", refuse)
    with pytest.raises(UserError, match=r"memory://bucket/m cannot be used \(OSError: Forbidden: bucket/m\)"):
        storage.fetch(f"{bucket}/m", [MARKER])
    assert asked == [1]


@pytest.mark.parametrize("code", files.FULL_DISK)
def test_a_full_disk_of_this_machine_is_no_failure_of_the_storage(bucket: str, monkeypatch, code: int):
    def is_full(source: str, local: str) -> None:
        asked.append(local)
        raise OSError(code, os.strerror(code))

    _write(f"{bucket}/m", {MARKER: b"1"})
    asked: list[str] = []
    monkeypatch.setattr(access, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(fsspec.filesystem("memory"), "get_file", is_full)
    with pytest.raises(OSError, match=os.strerror(code)) as full:
        storage.fetch(f"{bucket}/m", [MARKER])
    assert asked == [f"{full.value.filename}.part"]


def test_a_file_that_arrives_cut_is_refused_and_leaves_no_copy(bucket: str, monkeypatch, tmp_path):
    _write(f"{bucket}/m", {MARKER: b"12345"})
    system = fsspec.filesystem("memory")
    monkeypatch.setattr(system, "get_file", lambda source, local: Path(local).write_bytes(b"123"))
    with pytest.raises(UserError, match=r"expected 5 bytes in memory://bucket/m/model\.json, got 3; .* try again"):
        storage.fetch(f"{bucket}/m", [MARKER])
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".in_use"]


def test_errors_name_the_address_and_what_to_do(bucket: str, monkeypatch):
    with pytest.raises(UserError, match="memory://bucket/none does not exist"):
        storage.fetch(f"{bucket}/none", [MARKER])
    _write(f"{bucket}/m", {MARKER: b"1", "a": b""})
    with pytest.raises(UserError, match=r"expected memory://bucket/m to hold compiled\.json; it is another folder"):
        storage.fetch(f"{bucket}/m", ["compiled.json"])
    with pytest.raises(UserError, match=r"x1://b/m cannot be used \(ValueError: Protocol not known: x1\)"):
        storage.fetch("x1://b/m", [MARKER])
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    access._system.cache_clear()
    with pytest.raises(UserError, match=r"needs the extra storage: pip install 'cod_jax\[storage\]'"):
        storage.fetch(f"{bucket}/m", [MARKER])


def test_local_folders_are_written_as_ever(tmp_path):
    assert not storage.check_new_directory(tmp_path / "m", marker=MARKER)
    _write(str(tmp_path / "m"), {MARKER: b"1"})
    assert _content(tmp_path / "m") == {MARKER: b"1"}
    with pytest.raises(FileExistsError), files.new_directory(tmp_path / "m"):
        pass


def test_an_interrupted_copy_goes_on_where_it_was(bucket: str, monkeypatch):
    content = {MARKER: b"{}", "a": b"1", "z": b"2"}
    _write(f"{bucket}/m", content)
    system, got = fsspec.filesystem("memory"), []
    get = system.get_file

    def fails_at_z(source, local):
        got.append(source)
        if source.endswith("/z"):
            raise PermissionError("not now")
        get(source, local)

    monkeypatch.setattr(system, "get_file", fails_at_z)
    with pytest.raises(UserError, match=r"memory://bucket/m/z cannot be used \(PermissionError: not now\)"):
        storage.fetch(f"{bucket}/m", [MARKER])
    monkeypatch.setattr(system, "get_file", lambda source, local: (got.append(source), get(source, local)))
    assert _content(storage.fetch(f"{bucket}/m", [MARKER])) == content
    assert sorted(got) == ["/bucket/m/a", f"/bucket/m/{MARKER}", "/bucket/m/z", "/bucket/m/z"]


def test_a_folder_gets_another_place(bucket: str):
    _write(f"{bucket}/m", {MARKER: b"{}", "deep/a": b"1"})
    storage.move(f"{bucket}/m", f"{bucket}/aside/m", MARKER)
    assert storage.list_files(bucket) == {"aside/m/deep/a": 1, f"aside/m/{MARKER}": 2}


def test_whole_trees_and_single_files_are_copied(bucket: str):
    _write(f"{bucket}/m", {MARKER: b"{}", "deep/a": b"1"})
    assert (storage.fetch_all(f"{bucket}/m") / "deep" / "a").read_bytes() == b"1"
    assert storage.fetch_all(f"{bucket}/m/deep/a").read_bytes() == b"1"
    assert storage.list_files(f"{bucket}/m") == {"deep/a": 1, MARKER: 2}
    with pytest.raises(UserError, match="memory://bucket/none does not exist"):
        storage.fetch_all(f"{bucket}/none")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3_server", "gcs_server"])
def test_servers_keep_a_folder(name: str, tmp_path, request):
    server = request.getfixturevalue(name)
    place = f"{server.address}/models/lite"
    with in_environment(server, tmp_path):
        content = {MARKER: b"{}", "weights.safetensors": bytes(10**6)}
        _write(place, content)
        assert _content(storage.fetch(place, [MARKER])) == content
        with pytest.raises(FileExistsError, match=f"{place} already exists"):
            storage.check_new_directory(place, marker=MARKER)
        _write(place, {MARKER: b"2"}, force=True)
        assert _content(storage.fetch(place, [MARKER])) == {MARKER: b"2"}
        nothing = place.replace("bucket", "nothing")
        with pytest.raises(UserError, match=nothing):
            storage.fetch(nothing, [MARKER])
