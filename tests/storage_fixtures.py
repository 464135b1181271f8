"""A folder in fsspec's memory, in place of remote storage."""

from collections.abc import Iterator

import fsspec
import pytest

from cod_jax import storage


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[str]:
    """Return the address of an empty place; copies go below `tmp_path`, and nothing waits."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "_FIRST_PAUSE_SECONDS", 0.0)
    system = fsspec.filesystem("memory")
    yield "memory://bucket"
    system.store.clear()
    system.pseudo_dirs[:] = [""]
