"""Programs kept as this machine runs them."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.runtime import executables
from cod_jax.runtime.executables import Executables

ARGUMENTS = ({"weight": jnp.float32(3)}, np.arange(4, dtype=np.float32))


def exponentials(weights, x):
    return weights["weight"] * jnp.exp(x)


def test_a_kept_program_is_read_and_does_the_same(tmp_path: Path):
    kept = Executables(tmp_path / "kept")
    assert kept.load("encode-4", ARGUMENTS) is None
    made = kept.make("encode-4", exponentials, ARGUMENTS)
    # A second one as if the file had been lost: it is compiled anew, not taken from JAX's cache.
    kept.make("encode-4", exponentials, ARGUMENTS)
    read = kept.load("encode-4", ARGUMENTS)
    assert read is not None
    np.testing.assert_array_equal(read(*ARGUMENTS), made(*ARGUMENTS))


@pytest.mark.parametrize("content", [b"", b"x" * 100], ids=["empty", "other"])
def test_a_damaged_file_counts_as_absent(content: bytes, tmp_path: Path):
    (tmp_path / "encode-4.xla").write_bytes(content)
    assert Executables(tmp_path).load("encode-4", ARGUMENTS) is None


def test_a_program_that_cannot_be_kept_runs(tmp_path: Path):
    (tmp_path / "kept").write_bytes(b"a file where the folder should be")
    made = Executables(tmp_path / "kept").make("encode-4", exponentials, ARGUMENTS)
    assert made(*ARGUMENTS).shape == (4,)


def test_the_oldest_files_go(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(executables, "MAX_FILES", 2)
    for number in range(2):
        (tmp_path / f"{number}.xla").write_bytes(b"")
        os.utime(tmp_path / f"{number}.xla", (number, number))
    Executables(tmp_path).make("new", exponentials, ARGUMENTS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.xla", "new.xla"]


def test_a_processor_has_a_description():
    assert executables.processor()
