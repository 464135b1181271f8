import socket
from pathlib import Path

import fsspec
import pytest

from cod_jax import files, storage
from cod_jax.errors import UserError
from tests.storage_fixtures import bucket as bucket

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
    assert next(clock) == 100


def test_a_file_that_arrives_cut_is_refused_and_leaves_no_copy(bucket: str, monkeypatch, tmp_path):
    _write(f"{bucket}/m", {MARKER: b"12345"})
    system = fsspec.filesystem("memory")
    monkeypatch.setattr(system, "get_file", lambda source, local: Path(local).write_bytes(b"123"))
    with pytest.raises(UserError, match=r"expected 5 bytes in memory://bucket/m/model\.json, got 3; .* try again"):
        storage.fetch(f"{bucket}/m", [MARKER])
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_errors_name_the_address_and_what_to_do(bucket: str, monkeypatch):
    with pytest.raises(UserError, match="memory://bucket/none does not exist"):
        storage.fetch(f"{bucket}/none", [MARKER])
    _write(f"{bucket}/m", {MARKER: b"1", "a": b""})
    with pytest.raises(UserError, match=r"expected memory://bucket/m to hold compiled\.json; it is another folder"):
        storage.fetch(f"{bucket}/m", ["compiled.json"])
    with pytest.raises(UserError, match=r"x1://b/m cannot be used \(ValueError: Protocol not known: x1\)"):
        storage.fetch("x1://b/m", [MARKER])
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(UserError, match=r"needs the extra storage: pip install 'cod_jax\[storage\]'"):
        storage.fetch(f"{bucket}/m", [MARKER])


def test_local_folders_are_written_as_ever(tmp_path):
    assert not storage.check_new_directory(tmp_path / "m", marker=MARKER)
    _write(str(tmp_path / "m"), {MARKER: b"1"})
    assert _content(tmp_path / "m") == {MARKER: b"1"}
    with pytest.raises(FileExistsError), files.new_directory(tmp_path / "m"):
        pass


@pytest.mark.slow
def test_a_server_of_s3_keeps_a_folder(monkeypatch, tmp_path):
    boto3 = pytest.importorskip("boto3")
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        url = f"http://127.0.0.1:{port}"
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
            "XDG_CACHE_HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        content = {MARKER: b"{}", "weights.safetensors": bytes(10**6)}
        _write("s3://bucket/models/lite", content)
        assert _content(storage.fetch("s3://bucket/models/lite", [MARKER])) == content
        with pytest.raises(FileExistsError, match="s3://bucket/models/lite already exists"):
            storage.check_new_directory("s3://bucket/models/lite", marker=MARKER)
        _write("s3://bucket/models/lite", {MARKER: b"2"}, force=True)
        assert _content(storage.fetch("s3://bucket/models/lite", [MARKER])) == {MARKER: b"2"}
        with pytest.raises(UserError, match="s3://nothing/here"):
            storage.fetch("s3://nothing/here", [MARKER])
    finally:
        server.stop()
