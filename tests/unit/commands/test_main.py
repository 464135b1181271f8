"""Copies of what is at addresses, which commands get before their work."""

import logging

import fsspec
import pytest

from tests.storage_fixtures import bucket as bucket
from tests.unit.commands.conftest import Cod


@pytest.fixture
def model(bucket: str) -> str:
    """The address of what is taken for a model folder, as long as nobody loads it."""
    fsspec.filesystem("memory").pipe_file("/bucket/m/model.json", b"{}")
    return f"{bucket}/m"


def test_a_copy_that_cannot_be_written_is_one_line(cod: Cod, model: str, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    message = f"cod compress: error: {tmp_path}/file is a file, not a folder; choose another place\n"
    assert cod("compress", "-m", model, "photo.png") == (2, "", message)


def test_an_interrupted_copy_has_the_status_of_interrupted_work(cod: Cod, bucket: str, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fsspec.filesystem("memory"), "find", interrupt)
    result = cod("evaluate", "--images", f"{bucket}/photos", "--output", "out")
    assert result == (130, "", "cod evaluate: error: interrupted\n")


def test_warnings_during_a_copy_are_lines(cod: Cod, model: str, monkeypatch):
    system, failures = fsspec.filesystem("memory"), [OSError("503")]
    get = system.get_file

    def fails_once(*arguments: str) -> None:
        if failures:
            raise failures.pop()
        get(*arguments)

    monkeypatch.setattr(system, "get_file", fails_once)
    monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
    result = cod("compress", "-m", model, "none.png")
    assert result.status == 2
    assert result.err.startswith("cod compress: warning: storage does not answer (OSError: 503); trying again")
