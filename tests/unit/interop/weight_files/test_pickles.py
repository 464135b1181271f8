"""Pickles that hold more than tensors, and those that were made to do harm."""

import argparse
import collections
import datetime
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cod_jax.interop import read_checkpoint, read_state_dict
from cod_jax.interop.weight_files import state_dict
from tests.unit.interop.weight_files.pieces import (
    ORDERED_DICT,
    REBUILD,
    entry,
    integer,
    refused,
    storage,
    tensor,
    text,
    write_legacy,
    write_zip,
)


class Command:
    def __reduce__(self):
        import os

        return os.system, ("touch harm",)


def test_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        message = refused(write_zip(tmp_path / "a.pth", pickle.dumps({"a": Command()}, protocol)))
        assert "'a' (posix.system)" in message
        write_legacy(tmp_path / "b.pth", pickle.dumps({"a": Command()}, protocol), [], b"")
        assert "'a' (posix.system)" in refused(tmp_path / "b.pth")
    assert not (tmp_path / "harm").exists()


WEIGHT = text("w") + tensor(storage(), (6,), (1,)) + b"s"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (b"cbuiltins\neval\n" + text("1") + b"\x85R", "builtins.eval"),
        (b"c__builtin__\neval\n(tR", "__builtin__.eval"),
        (b"cos\nsystem\n", "os.system"),
        (text("os") + text("system") + b"\x93", "os.system"),
        (b"ctorch._utils\nget.__globals__\n", "torch._utils.get.__globals__"),
        (b"ctorch\nFloatStorage\n)R", "torch.FloatStorage"),
        (b"ctorch\nFloatStorage\n)\x81", "torch.FloatStorage"),
        (b"ctorch\nFloatStorage\n", "torch.FloatStorage"),
        (storage(), "a storage without a tensor"),
        # What is done to a value that is not read is passed over: its state, its items, calls of it.
        (b"cargparse\nNamespace\n)\x81}" + text("lr") + b"K\x01sb", "argparse.Namespace"),
        (b"cargparse\nNamespace\n)}\x92", "argparse.Namespace"),
        (b"ca.b\nDict\n)\x81" + text("x") + b"Ns(" + text("y") + b"Nu", "a.b.Dict"),
        (b"ca.b\nList\n)\x81Na(NNe", "a.b.List"),
        (b"ca.b\nmake\n)R)R", "a.b.make"),
        (b"\x8f(K\x01K\x02\x90", "set"),
        (b"(K\x01\x91", "frozenset"),
        (b"C\x02ab", "bytes"),
        (b"c_codecs\nencode\n" + text("ab") + text("latin1") + b"\x86R", "bytes"),
        (b"(NN1cpathlib\nPosixPath\n(" + text("a") + b"tRN0", "pathlib.PosixPath"),
        (b"}" + storage() + b"Ns", "named by a Storage"),
        (b"}))\x86Ns", "named by a tuple"),
        (b"}" + integer(2**40) + b"Ns", "named by a int"),
        (b"}G" + bytes(8) + b"Ns", "named by a float"),
        (b"}ctorch\nFloatStorage\nNs", "named by a torch.FloatStorage"),
    ],
)
def test_entries_beside_the_tensors_are_skipped_and_listed(tmp_path, caplog, value, what):
    path = write_zip(tmp_path / "a.pth", b"\x80\x02}" + WEIGHT + text("more") + value + b"s.")
    assert list(read_state_dict(path)) == ["w"]
    assert f"{path}: skipped what is neither a tensor nor a plain value: 'more" in caplog.text
    assert f" ({what})" in caplog.text
    assert "found none" in refused(write_zip(tmp_path / "b.pth", entry(value)))


def test_entries_that_python_and_numpy_wrote(tmp_path, caplog):
    entries = {
        "best": np.float64(3),
        "array": np.arange(3),
        "names": {"a"},
        "raw": b"ab",
        "path": Path("a/b"),
        "options": argparse.Namespace(lr=1),
        "when": datetime.date(2000, 1, 2),
        "type": np.float32,
        "counts": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "number": 2.5,
        "random": (3, (1, 2**40), None),
        "flags": {("a", 1): True},
    }
    for protocol in (2, 4, 5):
        caplog.clear()
        written = pickle.dumps(entries, protocol)
        weight = b"X\x01\x00\x00\x00w" + tensor(storage(), (6,), (1,)) + b"s."
        path = write_zip(tmp_path / "a.pth", written.removesuffix(b".") + weight)
        checkpoint = read_checkpoint(path)
        assert (checkpoint["number"], checkpoint["random"]) == (2.5, (3, (1, 2**40), None))
        assert list(read_state_dict(path)) == ["w"]
        for name in ("best", "array", "names", "raw", "path", "options", "when", "type", "counts", "default"):
            assert f"'{name}' (" in caplog.text


def test_a_numpy_scalar_beside_the_tensors(caplog):
    tensors = read_state_dict(Path(__file__).with_name("numpy_scalar.ckpt"))
    np.testing.assert_array_equal(tensors["net.weight"], [[0, 1, 2], [3, 4, 5]])
    assert "'best' (numpy._core.multiarray.scalar)" in caplog.text


def test_a_long_list_of_what_is_skipped_is_cut(tmp_path, caplog):
    many = b"".join(text("n" * 1000 + str(number)) + b"cos\nsystem\ns" for number in range(1000))
    read_state_dict(write_zip(tmp_path / "a.pth", b"\x80\x02}" + WEIGHT + many + b"."))
    assert len(caplog.records[0].getMessage()) < 3000


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"ctorch._utils\n_rebuild_qtensor\n)R", "the tensor 'a' is made by 'torch._utils._rebuild_qtensor'"),
        (b"}" + text("x") + b"\x93", "a name that is not short text"),
        (text("os") + text("x" * 300) + b"\x93", "a name that is not short text"),
        (text("x") + b")R", "calls something else"),
        (ORDERED_DICT + b"]R", "calls something else"),
        (b"(cos\nsystem\n" + text("x") + b"o", "instruction b'o'"),
        (b"(ios\nsystem\n", "instruction b'i'"),
        (b"\x82\x01", "instruction b'\\x82'"),
        (b"Pos.system\n", "instruction b'P'"),
        (text("x") + b"}b", "needs a dict to fill"),
        (b"](N\x90", "needs a Skipped to fill"),
        (text("model") + b"Q", "expected only tensors to be stored apart"),
        (b"(" + text("storage") + text("Float") + text("0") + text("cpu") + b"K\x01tQ", "described wrongly"),
        (storage(kind="QInt8"), "elements of 'torch.QInt8Storage', which are not read"),
    ],
)
def test_what_is_no_pickle_of_tensors_is_refused(tmp_path, value, reason):
    path = write_zip(tmp_path / "a.pth", b"\x80\x02}" + WEIGHT + text("a") + value + b"s.")
    assert reason in refused(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (tensor(storage(), (7,), (1,)), "reaches value 6 of a storage with 6"),
        (tensor(storage(), (2, 3), (4, 1)), "reaches value 6 of"),
        (tensor(storage(), (2,), (1,), 5), "reaches value 6 of"),
        (tensor(storage(), (2,), (2**70,)), "strides"),
        (tensor(storage(), (2,), (-1,), 1), "strides"),
        (tensor(storage(), (2,), (1,), -1), "described wrongly"),
        (tensor(storage(), (2, 3), (1,)), "strides"),
        (tensor(storage(), (2**62, 0), (1, 1)), "described wrongly"),
        (tensor(storage(), (-2,), (1,)), "described wrongly"),
        (tensor(storage(), (1,) * 40, (1,) * 40), "described wrongly"),
        (tensor(storage(), (2**45,), (0,)), "more than 8 times the file"),
        (tensor(storage(count=2**45), (2,), (1,)), "needs 140737488355328 bytes and the file has 24"),
        (tensor(storage("1"), (2,), (1,)), "storage '1' needs 24 bytes and the file has none"),
        (tensor(storage("../data.pkl"), (2,), (1,)), "the file has none"),
        (tensor(storage(kind="Double"), (2,), (1,)), "needs 48 bytes and the file has 24"),
        (tensor(text("x"), (2,), (1,)), "described wrongly"),
        (REBUILD + b")R", "lazy view"),
        (tensor(storage(), (2,), (1,)).removesuffix(b"tR") + b"}" + text("conj") + b"\x88stR", "lazy view"),
        (b"ctorch._utils\n_rebuild_parameter\n(NNNtR", "parameter is described wrongly"),
    ],
)
def test_tensors_that_do_not_fit_the_file_are_refused_before_memory_is_taken(tmp_path, value, reason):
    path = write_zip(tmp_path / "a.pth", entry(value))
    tracemalloc.start()
    try:
        assert reason in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"\x80\x02" + b"(" * 5000, "ends early"),
        (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nests more than 64 deep"),
        (b"\x80\x02" + b")" + b"\x85" * 5000 + b".", "nests more than 64 deep"),
        (b"\x80\x02]q\x00h\x00a.", "nests more than 64 deep"),
        (b"\x80\x02](]q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"e.", "more than 5000 values"),
        (b"\x80\x02Nr\xff\xff\xff\xff0.", "not a valid pickle"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "expected a dict of named tensors"),
        (b"\x80\x02h\x07.", "refers to a value"),
        (b"\x80\x02X\xff\xff\xff\xffab", "ends early"),
        (b"\x80\x04\x8e" + b"\xff" * 8, "ends early"),
        (b"\x80\x02T\xff\xff\xff\xff", "ends early"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"\x80\x02cos", "ends early"),
        (b"\x80\x02.", "not a valid pickle"),
        (b"\x80\x02NN.", "not a valid pickle"),
        (b"\x80\x02t.", "not a valid pickle"),
        (b"\x80\x02(a.", "not a valid pickle"),
        (b"\x80\x02NNa.", "needs a list to fill"),
        (b"\x80\x02}(Nu.", "key without a value"),
        (b"", "ends early"),
    ],
    ids=range(20),
)
def test_pickles_made_to_exhaust_or_confuse_the_reader(tmp_path, monkeypatch, contents, reason):
    monkeypatch.setattr("cod_jax.interop.weight_files.torch_file.MAX_VALUES", 5000)
    path = write_zip(tmp_path / "a.pth", contents)
    tracemalloc.start()
    try:
        assert reason in refused(path)
        # Lists of 56 bytes and their places on the stack; nothing grows beyond the instructions in the file.
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_one_list_made_into_a_dict_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr("cod_jax.interop.weight_files.torch_pickle.MAX_PAIRS", 10_000)
    pairs = b"](" + b"".join(text(f"{i:04d}") + b"N\x86" for i in range(200)) + b"e\x85q\x00"
    contents = b"\x80\x02](" + pairs + ORDERED_DICT + b"q\x01" + b"h\x01h\x00R" * 100 + b"e."
    assert "repeat their entries" in refused(write_zip(tmp_path / "a.pth", contents))


def test_too_many_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr("cod_jax.interop.weight_files.plain_pickle.MAX_INSTRUCTIONS", 1000)
    assert "more than 1000 instructions" in refused(write_zip(tmp_path / "a.pth", b"\x80\x02" + b"N" * 2000 + b"."))


@pytest.mark.parametrize(
    "key",
    [
        lambda number: b"\x8a\x10" + (number * (2**61 - 1)).to_bytes(16, "little"),  # all have the hash 0
        lambda number: integer(number << 16),
    ],
)
def test_keys_that_collide_take_little_time(tmp_path, key):
    many = b"".join(key(number) + b"N" for number in range(25_000))
    path = write_zip(tmp_path / "a.pth", b"\x80\x02}" + WEIGHT + text("state") + b"}(" + many + b"us.")
    start = time.process_time()
    assert list(read_state_dict(path)) == ["w"]
    assert time.process_time() - start < 4


def test_dicts_in_dicts_are_counted_once(tmp_path, monkeypatch):
    wide = b"}(" + b"".join(text(f"{number}") + b"N" for number in range(5_000)) + b"u"
    inner = b"}" + text("w") + tensor(storage(), (6,), (1,)) + b"s" + text("more") + wide + b"s"
    for _ in range(60):
        inner = b"}" + text("x") + inner + b"s"
    path = write_zip(tmp_path / "a.pth", b"\x80\x02" + inner + b".")
    calls = []
    count = state_dict._count_tensors
    monkeypatch.setattr(state_dict, "_count_tensors", lambda *given: calls.append(1) or count(*given))
    assert list(read_state_dict(path)) == ["w"]
    assert len(calls) < 2 * 5_100


def test_a_name_made_of_long_text_again_and_again(tmp_path):
    long = text("x" * 2**20) + b"q\x000"
    contents = b"\x80\x02" + long + b"](" + b"h\x00h\x00\x93" * 10_000 + b"e."
    start = time.process_time()
    assert "a name that is not short text" in refused(write_zip(tmp_path / "a.pth", contents))
    assert time.process_time() - start < 1
