"""Tensors of untrusted files: what the library for the format refuses, and types."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from cod_jax.errors import UserError
from cod_jax.runtime.arrays import TABLE_TYPES, WEIGHT_TYPES, open_tensors


def read(tmp_path: Path, data: bytes) -> dict[str, np.ndarray]:
    """Read the weights of a file of this content."""
    (tmp_path / "w.safetensors").write_bytes(data)
    with open_tensors(tmp_path / "w.safetensors") as tensors:
        return tensors.read(WEIGHT_TYPES)


def test_tensors_come_back(tmp_path: Path):
    arrays = {
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.ones((), np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "half": np.asarray([1.5, -2.0], jnp.bfloat16),
    }
    found = read(tmp_path, safetensors.numpy.save(arrays, metadata={"a": "b"}))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_shapes_types_and_texts_are_known_before_a_number_is_read(tmp_path: Path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(safetensors.numpy.save({"a": np.zeros((2, 3), np.int16)}, metadata={"kind": "x"}))
    with open_tensors(file) as tensors:
        assert (tensors.shapes, tensors.types, tensors.metadata) == ({"a": (2, 3)}, {"a": "I16"}, {"kind": "x"})
        with pytest.raises(UserError, match="expected tensor 'a' of type F32 or BF16, got I16"):
            tensors.read(WEIGHT_TYPES)
        assert tensors.read(TABLE_TYPES)["a"].dtype == np.int16


def table_of(**spans: tuple[int, int]) -> bytes:
    """A table of float32 tensors, each with first and last byte."""
    return json.dumps(
        {
            name: {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}
            for name, (begin, end) in spans.items()
        }
    ).encode()


@pytest.mark.parametrize(
    "table",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}',
        table_of(a=(0, 8), b=(0, 8), c=(0, 8)),
        table_of(a=(0, 8), b=(4, 8)),
        table_of(a=(0, 8), b=(4, 4)),
        table_of(a=(4, 8)),
        table_of(a=(0, 4)),
        table_of(),
    ],
)
def test_tables_that_do_not_fit_the_file_are_refused(tmp_path: Path, table: bytes):
    with pytest.raises(UserError, match=r"\w"):
        read(tmp_path, len(table).to_bytes(8, "little") + table + b"\x00" * 8)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, (2**40).to_bytes(8, "little")])
def test_files_without_a_table_are_refused(tmp_path: Path, data: bytes):
    with pytest.raises(UserError, match="header"):
        read(tmp_path, data)
