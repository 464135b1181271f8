"""Writing compiled folders."""

import tracemalloc
from typing import Any

import numpy as np

from cod_jax.runtime.folder import Part
from cod_jax.specialize import programs
from cod_jax.specialize.folder import write_compiled
from tests.model_fixtures import tiny_bundle


def test_one_half_at_a_time_is_in_memory_twice(tmp_path, monkeypatch):
    num_bytes = {"encode": 4_000_000, "decode": 6_000_000}

    def unused(*_: Any) -> Any:
        raise NotImplementedError

    def split(*_: Any) -> list[programs.Half]:
        parts: tuple[Part, ...] = ("encode", "decode")
        return [programs.Half(part, {"w": np.zeros(num_bytes[part], np.uint8)}, unused, unused) for part in parts]

    monkeypatch.setattr("cod_jax.specialize.folder.split", split)
    monkeypatch.setattr("cod_jax.specialize.folder.export_program", lambda *_: b"program")
    bundle = tiny_bundle()
    tracemalloc.start()
    try:
        write_compiled(tmp_path / "c", bundle, platforms=["cpu"], dtype="float32")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Both halves and the file of the first; then the second half and its file.
    assert 14_000_000 < peak < 15_000_000
    assert {path.name: path.stat().st_size // 1_000_000 for path in (tmp_path / "c").glob("*.safetensors")} == {
        "encode.safetensors": 4,
        "decode.safetensors": 6,
    }
