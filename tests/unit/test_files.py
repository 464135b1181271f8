import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cod_jax import files
from cod_jax.errors import UserError

SIGNALS = [(signal.SIGTERM, 143), *([(signal.SIGHUP, 129)] if sys.platform != "win32" else [])]


def test_write_bytes_makes_parents_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.bin"
    files.write_bytes(path, b"one")
    files.write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["b.bin"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "b.bin"
    files.write_bytes(path, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_bytes(path, b"new")
    assert files.reason(caught.value) == f"{path}: No space left on device"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["b.bin"]


def test_write_bytes_takes_the_longest_name_and_the_usual_permissions(tmp_path):
    path = tmp_path / ("n" * 255)
    files.write_bytes(path, b"x")
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_what_a_killed_process_leaves_is_named_after_its_place(tmp_path):
    with files.new_directory(tmp_path / "results") as folder:
        assert re.fullmatch(r"\.results\.[0-9a-f]{8}\.tmp", folder.name)
    with files.new_directory(tmp_path / ("é" * 120)) as folder:
        assert re.fullmatch(r"\.é{50}\.[0-9a-f]{8}\.tmp", folder.name)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in ("file", "file/a", "file/a/b"):
        with pytest.raises(NotADirectoryError, match=r"/file is a file, not a folder; choose another place$"):
            files.make_directory(tmp_path / path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        files.write_bytes(tmp_path / "file" / "x", b"x")
    with pytest.raises(NotADirectoryError, match="is a file"), files.new_directory(tmp_path / "file" / "x"):
        pass


def test_files_that_cannot_be_read_say_why_in_words(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, message in (
        ("link", "it is a link to a file that does not exist"),
        (".", r"the file cannot be opened \(Is a directory\)"),
    ):
        with pytest.raises(OSError, match=f"^{message}$"):
            files.read_bytes(tmp_path / name)


def test_system_errors_lose_their_number():
    assert files.reason(PermissionError(13, "Permission denied", "a.png")) == "a.png: Permission denied"
    assert files.reason(ValueError("two\nlines")) == "two lines"
    assert files.reason(MemoryError()) == "MemoryError"


def test_write_bytes_follows_links_and_refuses_folders_and_devices(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    files.write_bytes(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    with pytest.raises(ValueError, match="not a regular file"):
        files.write_bytes(tmp_path, b"x")
    with pytest.raises(ValueError, match="not a regular file"):
        files.write_bytes(os.devnull, b"x")


def test_new_directory_appears_at_the_end(tmp_path):
    path = tmp_path / "out" / "model"
    with files.new_directory(path) as folder:
        (folder / "file").write_text("x")
        assert not path.exists()
    assert (path / "file").read_text() == "x"
    assert os.listdir(path.parent) == ["model"]


def test_new_directory_leaves_nothing_after_an_error(tmp_path):
    def fill():
        with files.new_directory(tmp_path / "out") as folder:
            (folder / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert os.listdir(tmp_path) == []


def test_new_directory_replaces_only_when_forced(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    with files.new_directory(path) as folder:  # an empty folder holds nothing to lose
        (folder / "old").touch()
    with pytest.raises(FileExistsError, match="--force"), files.new_directory(path):
        pass
    with pytest.raises(RuntimeError), files.new_directory(path, force=True):
        raise RuntimeError
    assert os.listdir(path) == ["old"]
    with files.new_directory(path, force=True) as folder:
        (folder / "new").touch()
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_new_directory_does_not_replace_a_folder_of_another_kind(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").touch()
    home = files.new_directory(tmp_path / "home", force=True, marker="model.json")
    with pytest.raises(FileExistsError, match=r"no model\.json"), home:
        pass
    letter = files.new_directory(tmp_path / "home" / "letter", force=True)
    with pytest.raises(FileExistsError, match="not a folder"), letter:
        pass
    assert (tmp_path / "home" / "letter").exists()


@pytest.mark.parametrize("atomic", [True, False])
def test_a_folder_whose_replacement_fails_stays(tmp_path, monkeypatch, atomic: bool):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    renamed = os.replace

    def replace(source, target):
        if str(target) == str(path) and str(source).endswith(".tmp"):
            raise OSError(5, "Input/output error")
        renamed(source, target)

    def exchange(*_):
        if atomic:
            raise OSError(5, "Input/output error")
        return False

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(files, "_exchange", exchange)
    with pytest.raises(OSError, match="Input/output"), files.new_directory(path, force=True) as folder:
        (folder / "new").touch()
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(path) == ["old"]


def test_folders_change_places_also_where_the_system_cannot_do_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    for name in ("old", "new"):
        with files.new_directory(tmp_path / "out", force=True) as folder:
            (folder / name).touch()
    assert os.listdir(tmp_path / "out") == ["new"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have an instant without a folder")
def test_there_is_always_a_folder_while_it_is_replaced(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "file").touch()
    missing: list[bool] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            missing.append(not os.path.exists(path / "file"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        with files.new_directory(path, force=True) as folder:
            (folder / "file").touch()
    done.set()
    watcher.join()
    assert missing
    assert not any(missing)


def test_a_folder_that_another_process_made_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "out"

    def fill():
        with files.new_directory(path) as folder:
            (folder / "second").touch()
            path.mkdir()
            (path / "first").touch()

    with pytest.raises(FileExistsError, match="already exists; choose another output"):
        fill()
    assert os.listdir(path) == ["first"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("has_links", [True, False])
def test_of_several_writers_the_first_one_wins_unless_it_may_be_replaced(tmp_path, monkeypatch, has_links: bool):
    if not has_links:

        def link(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"first", replace=False)
    with pytest.raises(FileExistsError, match=r"a\.bin already exists; choose another output or pass --force"):
        files.write_bytes(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes differ there")
def test_a_file_or_folder_that_is_replaced_leaves_its_mode(tmp_path):
    files.write_bytes(tmp_path / "a.bin", b"x")
    (tmp_path / "a.bin").chmod(0o604)
    files.write_bytes(tmp_path / "a.bin", b"y")
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o604
    (tmp_path / "out").mkdir(mode=0o700)
    (tmp_path / "out" / "old").touch()
    with files.new_directory(tmp_path / "out", force=True):
        pass
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("output", "source", "message"),
    [
        ("photos/out", "photos", "lies in"),
        ("photos", "photos", "lies in"),
        ("link/out", "photos", "lies in"),
        ("result", "result/decoded", "would be replaced with it"),
        ("result", "photos", None),
        ("photos2", "photos", None),
    ],
)
def test_folders_that_hold_each_other_are_told(tmp_path, output: str, source: str, message: str | None):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")

    def check() -> None:
        files.check_outside(tmp_path / output, tmp_path / source)
        files.check_not_around(tmp_path / output, tmp_path / source)

    if message is None:
        check()
    else:
        with pytest.raises(ValueError, match=message):
            check()


def test_a_dash_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="got -; only compress and decompress take streams"):
        files.write_bytes("-", b"x")
    with pytest.raises(ValueError, match="got -; only compress and decompress take streams"):
        files.check_new_directory("-")
    assert os.listdir() == []


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_removes_what_is_not_complete(tmp_path, number: int, status: int):
    script = (
        "import signal, sys, time; from cod_jax import files\n"
        "signal.signal(int(sys.argv[2]), signal.SIG_DFL)  # nohup ignores SIGHUP\n"
        "with files.clean_exit_on_sigterm(), files.new_directory(sys.argv[1]) as folder:\n"
        "    (folder / 'part').touch(); print('ready', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out"), str(int(number))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        assert len(os.listdir(tmp_path)) == 1
        process.send_signal(number)
        assert process.wait(timeout=30) == status
        assert process.stderr.read() == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning")  # of a file that is left open
@pytest.mark.parametrize("step", ["open", "fsync", "replace", "unlink"])
def test_a_signal_at_any_step_of_a_write_leaves_no_temporary_file(tmp_path, monkeypatch, step: str):
    owner = Path if step in ("open", "unlink") else os
    original = getattr(owner, step)

    def interrupted(*args, **kwargs):
        monkeypatch.setattr(owner, step, original)
        result = original(*args, **kwargs) if step == "open" else None
        signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(owner, step, interrupted)

    def run() -> None:
        with files.clean_exit_on_sigterm():
            if step == "unlink":  # while an error is being handled
                monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            files.write_bytes(tmp_path / "a.bin", b"x")

    with pytest.raises(SystemExit):
        run()
    assert os.listdir(tmp_path) == []


def test_a_second_sigterm_does_not_interrupt_the_clean_up():
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def run() -> None:
        with files.clean_exit_on_sigterm():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_are_left_alone_outside_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with files.clean_exit_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("café 写真.png", "utf-8", "café 写真.png"),
        ("café.png", "ascii", r"caf\xe9.png"),
        (os.fsdecode(b"caf\xe9.png"), "utf-8", r"caf\udce9.png"),
        ("\x1b[31mred\r\n\u202e", "utf-8", r"\x1b[31mred\r\n\u202e"),
    ],
)
def test_printable_text_is_harmless(text, encoding, expected):
    assert files.printable(text, encoding) == expected


@pytest.mark.parametrize("read", [files.read_bytes, lambda path: files.open_regular(path).close()])
def test_pipes_and_devices_are_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "photo.jpg")
    for path in (tmp_path / "photo.jpg", "/dev/zero"):
        with pytest.raises(OSError, match="it is not a regular file; save its content as a file first"):
            read(path)


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", Path("gs://bucket/run"), "s3://b", "file:///home/x", "https://h/x"]
)
def test_addresses_of_remote_storage_are_no_folders(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is an address, and only local paths work here; mount that storage"):
        files.make_directory(path)
    with pytest.raises(UserError, match="is an address"):
        files.write_bytes(path, b"")
    with pytest.raises(UserError, match="is an address"), files.new_directory(path):
        pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a:b", "./gs:/x", "/gs://x", "runs/a=1,b:2", "configs/tiny.py:2", "my.module:Class"])
def test_other_names_with_colons_are_local(path):
    files.require_local(path)
