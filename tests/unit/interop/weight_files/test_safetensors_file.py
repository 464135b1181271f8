"""Safetensors files, whole and damaged."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from cod_jax.interop import read_state_dict
from tests.unit.interop.weight_files.pieces import refused, write_safetensors


def test_safetensors_written_by_its_own_package(tmp_path):
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(3, np.int64),
        "c": np.zeros((0, 2), "f2"),
    }
    save_file(tensors, tmp_path / "weights.bin", metadata={"format": "np"})
    read = read_state_dict(tmp_path / "weights.bin")
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == value.dtype


def test_a_safetensors_file_of_many_megabytes(tmp_path):
    # The product of two positions in it is beyond 2^48, the limit of a tensor's size.
    data = bytes(2**24 + 8)
    table = {
        "a": {"dtype": "U8", "shape": [2**24], "data_offsets": [0, 2**24]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [2**24, 2**24 + 8]},
    }
    assert read_state_dict(write_safetensors(tmp_path / "a.safetensors", table, data))["b"].shape == (2,)


def test_bfloat16_is_widened(tmp_path):
    table = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    values = read_state_dict(write_safetensors(tmp_path / "a.safetensors", table, b"\x80\x3f\x20\xc0"))["a"]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [1, -2.5])
    assert not values.flags.writeable


@pytest.mark.parametrize(
    "table",
    [
        b"[" * 50_000,
        b'{"a": 1' + b"0" * 5000 + b"}",
        b"[]",
        {"a": 1},
        {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1] * 100 + [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"},
        {"a\n" * 500: {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
    ],
    ids=range(14),
)
def test_damaged_tables_are_refused(tmp_path, table):
    message = refused(write_safetensors(tmp_path / "a.safetensors", table, bytes(8)))
    assert message.startswith("is not a sound safetensors file ('")
    assert message.endswith("the file is cut short or damaged: download or copy it again")


def test_element_types_that_numpy_lacks_are_refused(tmp_path):
    table = {"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}
    message = refused(write_safetensors(tmp_path / "a.safetensors", table, bytes(8)))
    assert message.startswith("expected the element type of tensor 'a' to be one of BF16, BOOL")
    assert message.endswith("got 'F8_E4M3'; store it as one of these")


def test_a_table_of_very_many_tensors_is_refused_unread(tmp_path, monkeypatch):
    table = {str(n): {"dtype": "F32", "shape": [], "data_offsets": [4 * n, 4 * n + 4]} for n in range(200_000)}
    path = write_safetensors(tmp_path / "a.safetensors", table, bytes(4 * len(table)))
    monkeypatch.setattr("safetensors.safe_open", lambda *_, **__: pytest.fail("it was read"))
    assert "its table of tensors takes more than 8388608 bytes" in refused(path)
