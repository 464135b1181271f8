"""Pickles that were made to do harm: all but tensors in plain containers that fit the file is refused."""

import pickle
import tracemalloc

import pytest

from tests.unit.interop.weight_files.pieces import (
    ORDERED_DICT,
    REBUILD,
    entry,
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
        assert ".system'" in message
        write_legacy(tmp_path / "b.pth", pickle.dumps({"a": Command()}, protocol), [], b"")
        assert ".system'" in refused(tmp_path / "b.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"cbuiltins\neval\n" + text("1") + b"\x85R", "'builtins.eval'"),
        (b"c__builtin__\neval\n(tR", "'__builtin__.eval'"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "__globals__"),
        (text("os") + text("system") + b"\x93", "'os.system'"),
        (b"}" + text("x") + b"\x93", "'?'"),
        (b"ctorch\nFloatStorage\n)R", "calls 'torch.FloatStorage'"),
        (b"ctorch\nFloatStorage\n)\x81", "calls 'torch.FloatStorage'"),
        (b"ctorch\nFloatStorage\n", "got 'torch.FloatStorage'"),
        (storage(), "got a storage"),
        (text("x") + b")R", "calls a str"),
        (ORDERED_DICT + b"]R", "calls 'collections.OrderedDict'"),
        (b"(cos\nsystem\n" + text("x") + b"o", "'os.system'"),
        (b"(ios\nsystem\n", "instruction b'i'"),
        (b"\x82\x01", "instruction b'\\x82'"),
        (b"Pos.system\n", "instruction b'P'"),
        (text("x") + b"}b", "needs a dict to fill"),
        (text("model") + b"Q", "expected only tensors to be stored apart"),
        (b"(" + text("storage") + text("Float") + text("0") + text("cpu") + b"K\x01tQ", "described wrongly"),
        (storage(kind="QInt8"), "'torch.QInt8Storage'"),
        (b"}" + storage() + b"Ns", "has a Storage as the key"),
        (b"}" + b"))\x86" + b"Ns", "has a tuple as the key"),
        (b"}ctorch\nFloatStorage\nNs", "the key 'torch.FloatStorage'"),
    ],
)
def test_anything_else_than_tensors_is_refused(tmp_path, value, reason):
    assert reason in refused(write_zip(tmp_path / "a.pth", entry(value)))


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
        (b"\x80\x02Nr\xff\xff\xff\xff0.", "instruction b'0'"),
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
