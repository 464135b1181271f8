"""Which tensors of a weight file are taken, from whole and from damaged files."""

import pickle

import numpy as np
import pytest

from cod_jax.interop import read_checkpoint, read_state_dict
from tests.unit.interop.weight_files.pieces import FORMATS, nested, refused, storage, tensor, write_zip

GROUPS = {
    "lin.safetensors": "lin",
    "lin_zip.pth": "lin",
    "lin_legacy.pth": "lin",
    "mixed_zip.pth": "mixed",
    "mixed_legacy.pth": "mixed",
    "nested_zip.pth": "nested",
    "rebuild_v1_legacy.pth": "rebuild_v1",
}


@pytest.mark.parametrize("name", GROUPS)
def test_tensors_equal_those_that_torch_reads(name):
    with np.load(FORMATS / "expected.npz") as stored:
        prefix = GROUPS[name] + "/"
        expected = {key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)}
    tensors = read_state_dict(FORMATS / name)
    assert tensors.keys() == expected.keys()
    for key, value in tensors.items():
        assert value.dtype == expected[key].dtype, key
        np.testing.assert_array_equal(value, expected[key], err_msg=key)
        assert not value.flags.writeable


@pytest.mark.parametrize("name", ["refuse_zip.pth", "refuse_legacy.pth"])
def test_a_function_that_is_not_known_is_skipped_and_listed(name, caplog):
    assert read_state_dict(FORMATS / name)
    assert "'b' (posix.getcwd)" in caplog.text


@pytest.mark.parametrize("path", sorted(FORMATS.glob("damaged_*")), ids=lambda path: path.name)
def test_a_damaged_file_is_one_clear_line(path):
    assert "cut short or damaged" in refused(path)


def test_the_nested_structure_is_kept_by_read_checkpoint():
    checkpoint = read_checkpoint(FORMATS / "nested_zip.pth")
    assert "state_dict" in checkpoint
    assert type(checkpoint["state_dict"]) is dict


def test_which_dict_holds_the_tensors(tmp_path):
    weights = nested(w=tensor(storage(), (6,), (1,)))
    path = write_zip(tmp_path / "a.pth", b"\x80\x02" + nested(epoch=b"K\x03", model=weights, note=b"N") + b".")
    assert list(read_state_dict(path)) == ["w"]
    path = write_zip(tmp_path / "b.pth", b"\x80\x02" + nested(state_dict=weights, ema=weights) + b".")
    assert list(read_state_dict(path)) == ["w"]
    path = write_zip(tmp_path / "m.pth", b"\x80\x02" + nested(module=weights, optimizer=weights) + b".")
    assert list(read_state_dict(path)) == ["w"]
    path = write_zip(
        tmp_path / "c.pth", b"\x80\x02" + nested(raw=weights, ema=nested(shadow=weights, decay=b"N")) + b"."
    )
    assert "'raw' (1), 'ema' (1); name one with `key`" in refused(path)
    assert list(read_state_dict(path, "ema.shadow")) == ["w"]
    with pytest.raises(ValueError, match="has no 'emma' of the key 'emma'; here are 'raw', 'ema'"):
        read_state_dict(path, "emma")
    path = write_zip(tmp_path / "d.pth", b"\x80\x02" + nested(w=tensor(storage(), (6,), (1,)), more=weights) + b".")
    assert "beside a dict of tensors, 'more'" in refused(path)
    path = write_zip(tmp_path / "e.pth", b"\x80\x02" + nested(epoch=b"K\x03") + b".")
    assert "expected a dict of named tensors, found none" in refused(path)


def test_what_is_not_a_weight_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        read_state_dict(tmp_path / "missing.pth")
    assert "is a folder" in refused(tmp_path)
    for name, data, reason in [
        ("empty.pth", b"", "is empty"),
        ("page.pth", b"<!DOCTYPE html>\n<html>", "<!DOCTYPE html>"),
        ("pointer.safetensors", b"version https://git-lfs", "header too large"),
        ("tree.pth", pickle.dumps({"a": 1}), "expected a pickle that torch wrote"),
        ("archive.zip", b"PK\x05\x06" + bytes(18), "got 0;"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert reason in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["mixed_zip.pth", "mixed_legacy.pth", "lin.safetensors"])
def test_random_damage_ends_in_a_value_error_or_in_tensors(tmp_path, name):
    whole = bytearray((FORMATS / name).read_bytes())
    random = np.random.RandomState(0)
    path = tmp_path / name
    for _ in range(60):
        data = bytearray(whole)
        for position in random.randint(0, min(len(data), 2000), random.randint(1, 4)):
            data[position] = random.randint(256)
        path.write_bytes(data[: random.randint(len(data))] if random.randint(3) == 0 else data)
        try:
            read_state_dict(path)
        except ValueError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 - no error at all is right too
