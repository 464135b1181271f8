"""Programs kept as this machine runs them."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.runtime import executables, native
from cod_jax.runtime.executables import Executables

ARGUMENTS = (np.array(3, np.float32), np.ones(2, np.int32), np.arange(4, dtype=np.float32))


def shapes(arrays) -> list[native.Shaped]:
    return [native.Shaped(array.shape, array.dtype) for array in arrays]


def exponentials(weight, unused, x):
    return weight * jnp.exp(x)


def test_a_kept_program_is_read_and_does_the_same(tmp_path: Path):
    kept = Executables(tmp_path / "kept")
    assert kept.load("encode-4") is None
    made = kept.make("encode-4", exponentials, shapes(ARGUMENTS))
    # A second one as if the file had been lost: it is compiled anew, not taken from JAX's cache.
    kept.make("encode-4", exponentials, shapes(ARGUMENTS))
    read = kept.load("encode-4")
    assert read is not None
    expected = jax.jit(exponentials)(*ARGUMENTS)
    for program in (made, read):
        assert program is not None
        np.testing.assert_array_equal(program(*ARGUMENTS), expected)
        # What was placed before serves many calls, and results outlive them.
        placed = [native.put(argument) for argument in ARGUMENTS[:2]]
        results = [program(*placed, ARGUMENTS[2] + number) for number in range(3)]
        np.testing.assert_array_equal(results[0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_arrays_of_other_types_come_back(tmp_path: Path, dtype):
    given = np.arange(6).reshape(2, 3).astype(dtype)
    made = Executables(tmp_path).make("same", lambda x: x[::-1], shapes([given]))
    assert made is not None
    np.testing.assert_array_equal(made(given), given[::-1])


@pytest.mark.parametrize("content", [b"", b"x" * 100], ids=["empty", "other"])
def test_a_damaged_file_counts_as_absent(content: bytes, tmp_path: Path):
    (tmp_path / "encode-4.xla").write_bytes(content)
    assert Executables(tmp_path).load("encode-4") is None


def test_a_file_of_another_version_counts_as_absent(tmp_path: Path):
    content = b'{"shape": [4], "dtype": "float32"}\nnot a program of this jaxlib'
    (tmp_path / "encode-4.xla").write_bytes(executables.hashlib.sha256(content).digest() + content)
    assert Executables(tmp_path).load("encode-4") is None


def test_a_program_that_cannot_be_kept_runs(tmp_path: Path):
    (tmp_path / "kept").write_bytes(b"a file where the folder should be")
    made = Executables(tmp_path / "kept").make("encode-4", exponentials, shapes(ARGUMENTS))
    assert made is not None
    assert made(*ARGUMENTS).shape == (4,)


def test_a_program_that_jaxlib_does_not_write_down_is_none(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(native, "Program", lambda *_: b"".index(1))
    assert Executables(tmp_path).make("encode-4", exponentials, shapes(ARGUMENTS)) is None
    assert not list(tmp_path.iterdir())


def test_the_oldest_files_go(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(executables, "MAX_FILES", 2)
    for number in range(2):
        (tmp_path / f"{number}.xla").write_bytes(b"")
        os.utime(tmp_path / f"{number}.xla", (number, number))
    Executables(tmp_path).make("new", exponentials, shapes(ARGUMENTS))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.xla", "new.xla"]


def test_this_jaxlib_runs_programs_without_jax_whatever_its_cache_keeps():
    setting = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[setting]
    jax.config.update(setting, 0.0)
    try:
        assert all(native.works.__wrapped__() for _ in range(2))
    finally:
        jax.config.update(setting, before)


def test_a_processor_has_a_description():
    assert executables.processor()
