"""The two containers of torch: what they may hold, and how damage to them is refused."""

import io
import struct
import zipfile

import numpy as np

from cod_jax.interop import read_state_dict
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


def test_names_of_python_2_and_pairs_of_its_ordered_dict(tmp_path):
    value = tensor(storage(), (6,), (1,)).replace(text("storage"), b"U\x07storage")
    contents = b"\x80\x02" + ORDERED_DICT + b"(]]U\x01aa" + value + b"aatR."
    path = write_legacy(tmp_path / "old.pth", contents, ["0"], struct.pack("<q6f", 6, *range(6)))
    np.testing.assert_array_equal(read_state_dict(path)["a"], np.arange(6, dtype=np.float32))


def test_legacy_storage_views(tmp_path):
    view = storage().removesuffix(b"tQ") + b"(" + text("v") + integer(2) + integer(4) + b"ttQ"
    value = tensor(view, (2,), (2,), 1)
    path = write_legacy(tmp_path / "view.pth", entry(value), ["0"], struct.pack("<q6f", 6, *range(6)))
    np.testing.assert_array_equal(read_state_dict(path)["a"], np.array([3, 5], np.float32))
    past = write_legacy(tmp_path / "past.pth", entry(tensor(view, (2,), (3,), 1)), ["0"], bytes(32))
    assert "reaches value 4 of a storage with 4" in refused(past)


def test_attributes_of_an_ordered_dict_are_ignored(tmp_path):
    contents = b"\x80\x02" + ORDERED_DICT + b")R" + text("a") + tensor(storage(), (6,), (1,)) + b"s"
    contents += b"}" + text("_metadata") + b"}sb."
    assert list(read_state_dict(write_zip(tmp_path / "a.pth", contents))) == ["a"]


def test_a_pickle_of_protocol_4(tmp_path):
    value = tensor(storage(), (2, 3), (3, 1)).replace(
        REBUILD, b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94"
    )
    contents = b"\x80\x04\x95" + bytes(8) + b"}\x94\x8c\x01a" + value + b"s."
    assert read_state_dict(write_zip(tmp_path / "a.pth", contents))["a"].shape == (2, 3)


def test_big_endian_archives(tmp_path):
    data = np.arange(6, dtype=">f4").tobytes()
    path = write_zip(tmp_path / "a.pth", entry(tensor(storage(), (6,), (1,))), data_0=data, byteorder=b"big")
    np.testing.assert_array_equal(read_state_dict(path)["a"], np.arange(6, dtype=np.float32))


def test_tensors_of_one_storage_share_memory(tmp_path):
    rows, columns = tensor(storage(), (2, 3), (3, 1)), tensor(storage(), (3, 2), (1, 3))
    path = write_zip(tmp_path / "a.pth", b"\x80\x02}" + text("a") + rows + b"s" + text("b") + columns + b"s.")
    tensors = read_state_dict(path)
    np.testing.assert_array_equal(tensors["a"], tensors["b"].T)
    assert np.shares_memory(tensors["a"], tensors["b"])


def test_zip_records(tmp_path):
    contents = entry(tensor(storage(), (6,), (1,)))
    path = write_zip(tmp_path / "a.pth", contents)
    whole = path.read_bytes()
    position = whole.index(np.arange(6, dtype="<f4").tobytes())
    path.write_bytes(whole[: position + 5] + b"\x01" + whole[position + 6 :])
    assert "the checksum of storage '0' is wrong" in refused(path)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", contents)
        archive.writestr("archive/data/0", bytes(2**20))
    assert "compressed" in refused(path)

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one/data.pkl", contents)
        archive.writestr("two/data.pkl", contents)
    assert "got 2;" in refused(path)
    assert "got 'middle'" in refused(write_zip(path, contents, byteorder=b"middle"))


def test_zip_records_that_overlap(tmp_path):
    """A small file whose directory points many times at the same large record."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(2**16))
        first = archive.infolist()[1]
        for index in range(1, 20):
            info = zipfile.ZipInfo(f"a/data/{index}")
            info.header_offset, info.file_size, info.compress_size, info.CRC = (
                first.header_offset,
                first.file_size,
                first.compress_size,
                first.CRC,
            )
            archive.filelist.append(info)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    assert "overlap" in refused(tmp_path / "a.pth")


def test_legacy_storages(tmp_path):
    contents = entry(tensor(storage(), (6,), (1,)))
    numbers = struct.pack("<q6f", 6, *range(6))
    path = tmp_path / "a.pth"
    assert "list of storages" in refused(write_legacy(path, contents, ["0", "0"], numbers))
    assert "that no tensor uses" in refused(write_legacy(path, contents, ["0", "1"], numbers))
    assert "the file has none" in refused(write_legacy(path, contents, [], b""))
    assert "ends after 3 of 8 bytes" in refused(write_legacy(path, contents, ["0"], bytes(3)))
    assert "claims" in refused(write_legacy(path, contents, ["0"], b"\xff" * 32))
    assert "needs 24 bytes and the file has 20" in refused(
        write_legacy(path, contents, ["0"], struct.pack("<q5f", 5, *range(5)))
    )
    assert "version 1001" in refused(write_legacy(path, contents, ["0"], numbers, version=2000))
    two = entry(tensor(storage(), (6,), (1,)) + b"s" + text("b") + tensor(storage(kind="Int"), (6,), (1,)))
    assert "two element types" in refused(write_legacy(path, two, ["0"], numbers))


def test_an_archive_of_very_many_records_is_refused_before_they_are_read(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", entry(tensor(storage(), (6,), (1,))))
        archive.writestr("a/data/0", np.arange(6, dtype="<f4").tobytes())
        archive.writestr("a/data/1", b"")
        last = archive.infolist()[2]
        for index in range(2, 500):
            info = zipfile.ZipInfo(f"a/data/{index}")
            info.header_offset, info.CRC = last.header_offset, 0
            archive.filelist.append(info)
    path = tmp_path / "a.pth"
    path.write_bytes(buffer.getvalue())
    assert list(read_state_dict(path)) == ["a"]
    monkeypatch.setattr("cod_jax.interop.weight_files.torch_file.MAX_DIRECTORY_BYTES", 10_000)
    assert "its zip directory has more than 10000 bytes" in refused(path)
