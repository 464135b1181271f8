"""A full disk is one line that says where, whatever kind of error it is."""

import errno
import os
import shutil
from types import SimpleNamespace

import pytest

from cod_jax.commands.full_disk import full_disk
from cod_jax.errors import UserError


@pytest.fixture(autouse=True)
def free(monkeypatch) -> dict[str, int]:
    """Free bytes of folders that are full; others have much."""
    found: dict[str, int] = {}
    usage = lambda path: SimpleNamespace(free=found.get(str(path), 2**40))  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    return found


def test_a_file_that_did_not_fit_is_named(tmp_path, free):
    free[str(tmp_path)] = 1_234_567
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "new" / "x.bin"))
    assert str(full_disk(error, [])) == (
        f"{tmp_path}/new/x.bin: No space left on device; 1.2 MB are free in {tmp_path}: make room, and run the command "
        "again"
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("write() failed: No space left on device; at byte 7"),
    ],
)
def test_the_fullest_place_is_named_where_the_error_names_none(tmp_path, free, error: Exception):
    free[str(tmp_path)] = 0
    text = str(full_disk(error, [str(tmp_path / "output")]))
    assert "No space left on device" in text
    assert f"0.0 MB are free in {tmp_path}" in text


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), UserError("saved nothing (No space left on device)"), RuntimeError("x")],
)
def test_other_errors_are_left_alone(error: Exception):
    assert full_disk(error, []) is None
