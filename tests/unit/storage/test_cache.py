import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cod_jax.storage import cache
from tests.storage_fixtures import let_go_of_copies


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "_in_use", {})
    yield
    let_go_of_copies()


def _keep(state: str) -> Path:
    def fill(folder: Path) -> None:
        (folder / "file").write_text(state)

    return cache.kept_copy(state, "copy", fill)


def test_the_copies_that_were_used_last_stay(monkeypatch):
    monkeypatch.setattr(cache, "MAX_COPIES", 3)
    copies = {state: _keep(state) for state in "abcd"}
    # This process uses all of them.
    assert all(copy.is_dir() for copy in copies.values())
    let_go_of_copies()
    for number, state in enumerate("bcda"):
        os.utime(copies[state].parent, (number, number))
    new = _keep("e")
    assert [state for state, copy in copies.items() if copy.is_dir()] == ["a", "d"]
    assert (new / "file").read_text() == "e"


def test_a_copy_that_another_process_uses_stays(monkeypatch):
    monkeypatch.setattr(cache, "MAX_COPIES", 1)
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from cod_jax.storage import cache
from tests.storage_fixtures import let_go_of_copies
print(cache.kept_copy("a", "copy", lambda folder: None), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        copy = Path(other.stdout.readline().strip())
        _keep("b")
        assert copy.is_dir()
        other.stdin.close()
        other.wait()
    _keep("c")
    assert not copy.is_dir()


def test_of_several_processes_one_makes_the_copy(tmp_path):
    script = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from cod_jax.storage import cache
from tests.storage_fixtures import let_go_of_copies
def fill(folder):
    (folder / "file").write_text("a")
    print("filled", flush=True)
    time.sleep(1)
print(cache.kept_copy("a", "copy", fill).name)
"""
    start = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate(timeout=60)[0] for process in start) == ["copy\n", "filled\ncopy\n"]
