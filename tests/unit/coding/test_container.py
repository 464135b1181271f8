"""The container: every size, every single-byte change, and untrusted data."""

import dataclasses
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cod_jax.coding import checksum, container
from cod_jax.coding.container import Container

any_file = st.builds(
    Container,
    height=st.integers(1, container.MAX_SIDE),
    width=st.integers(1, container.MAX_SIDE),
    mode=st.sampled_from(container.MODES),
    model=st.binary(min_size=4, max_size=4).map(bytes.hex),
    payload=st.binary(max_size=300),
)
deterministic = settings(derandomize=True, deadline=None, database=None)


def _with_checksum(content: bytes) -> bytes:
    return content + checksum.crc24(content)


def test_the_checksum_is_that_of_openpgp_inverted():
    check_value = 0x21CF02  # of CRC-24/OPENPGP
    assert checksum.crc24(b"123456789") == (check_value ^ 0xFFFFFF).to_bytes(3, "big")


def test_the_bytes_are_as_documented():
    file = Container(height=1080, width=1920, mode="context", model="0123abcd", payload=b"\x11\x22")
    sides = 1079 << 12 | 1919
    content = b"\xcd\x14\x01\x23\xab\xcd" + sides.to_bytes(3, "big") + b"\x11\x22"
    assert container.write(file) == _with_checksum(content)
    wide = dataclasses.replace(file, width=4097, mode="raw")
    content = b"\xcd\x11\x01\x23\xab\xcd" + (1079).to_bytes(3, "big") + (4096).to_bytes(3, "big") + b"\x11\x22"
    assert container.write(wide) == _with_checksum(content)


def test_every_small_size_comes_back():
    for height in range(1, 71):
        for width in range(1, 71):
            file = Container(height, width, "raw", "00ff00ff", bytes([height, width]))
            data = container.write(file)
            assert len(data) == 12 + 2
            assert container.read(data) == file


@given(file=any_file)
@deterministic
def test_every_file_comes_back(file: Container):
    data = container.write(file)
    assert container.read(data) == file
    narrow = max(file.height, file.width) <= 4096
    assert len(data) - len(file.payload) == (12 if narrow else 15)


@pytest.mark.parametrize(
    "file",
    [
        Container(1, 1, "raw", "00000000", b""),
        Container(512, 768, "context", "89abcdef", bytes(range(40))),
        Container(4096, 4096, "static", "ffffffff", b"\xff" * 9),
        Container(5000, 3, "factorized", "12345678", b"\x00\x01"),
    ],
    ids=lambda file: file.mode,
)
def test_every_change_of_one_byte_is_refused(file: Container):
    data = container.write(file)
    for place in range(len(data)):
        for value in set(range(256)) - {data[place]}:
            with pytest.raises(ValueError, match=r"\w"):
                container.read(data[:place] + bytes([value]) + data[place + 1 :])


@given(file=any_file, end=st.data())
@deterministic
def test_cut_off_and_extended_files_are_refused(file: Container, end: st.DataObject):
    data = container.write(file)
    length = end.draw(st.integers(0, len(data) - 1))
    for other in (data[:length], data + b"\0", data + bytes(3), data + b"\xff" * 3, data[1:]):
        with pytest.raises(ValueError, match=r"\w"):
            container.read(other)


@given(data=st.binary(max_size=64))
@settings(deterministic, max_examples=300)
def test_whatever_is_read_is_what_would_be_written(data: bytes):
    # With a right checksum, so that the fields themselves are tested.
    for content in (data, bytes([container.MAGIC, 0x10 | len(data) % 16]) + data):
        try:
            file = container.read(_with_checksum(content))
        except ValueError:
            continue
        assert container.write(file) == _with_checksum(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xcd\x20" + bytes(7), "it has version 2 of the .cod format and this cod_jax reads version 1; use a newer"),
        (b"\xcd\x1e" + bytes(7), "it is coded in mode 7, which this cod_jax does not know"),
        (b"\xcd\x11" + bytes(8), "too short for a .cod file with wide sides"),
        (b"\xcd\x11" + bytes(10), "its sides 1x1 are stored with more bytes than they need"),
        (b"\xcd\x10" + bytes(6), "11 bytes are too short for a .cod file; it is cut off"),
        (b"\xcc\x10" + bytes(9), "this is not a .cod file; if it comes from a published CoD tool, name its layout"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "this is a PNG picture, not a .cod file; compress it first"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, message: str):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        container.read(_with_checksum(content))


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (2**24 + 1, 1), (1, 2**24 + 1)])
def test_sides_that_no_file_holds_are_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match="sides of 1 to 16777216 pixels"):
        container.write(Container(*size, "raw", "00000000", b""))


def test_the_largest_sides_allocate_nothing():
    data = container.write(Container(2**24, 2**24, "raw", "00000000", b"\0"))
    tracemalloc.start()
    try:
        assert container.read(data).width == 2**24
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()


def test_files_above_the_limit_are_neither_written_nor_checked(monkeypatch):
    file = Container(9, 9, "raw", "00000000", bytes(20))
    data = container.write(file)
    monkeypatch.setattr(container, "MAX_BYTES", len(data))
    assert container.read(container.write(file)) == file
    monkeypatch.setattr(container, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ValueError, match="a payload of 20 bytes makes a file above the limit of 31; make the picture"):
        container.write(file)
    monkeypatch.delattr(checksum, "crc24")  # which takes long
    with pytest.raises(ValueError, match=r"a \.cod file of at most 31 bytes, got a longer one"):
        container.read(data)


@pytest.mark.parametrize("place", [1, 3, 7, 1000, -1])
def test_a_change_of_a_long_file_is_refused(place: int):
    data = bytearray(container.write(Container(9, 9, "raw", "00000000", bytes(2**18))))
    data[place] ^= 2
    with pytest.raises(ValueError, match="its checksum does not fit its content"):
        container.read(bytes(data))


def test_the_checksum_of_long_data_is_that_of_its_bytes_one_after_another():
    data = np.random.default_rng(0).bytes(2**17 + 333)
    register = checksum.INITIAL
    for byte in data:
        register ^= byte << 16
        for _ in range(8):
            register = register << 1 ^ (checksum.POLYNOMIAL if register & 0x800000 else 0)
    assert checksum.crc24(data) == (register ^ 0xFFFFFF).to_bytes(3, "big")


def test_the_longest_file_is_checked_in_little_time():
    payload = np.random.default_rng(0).bytes(container.MAX_BYTES - 12)
    data = container.write(Container(9, 9, "raw", "00000000", payload))
    start = time.process_time()
    assert container.read(data).payload == payload
    assert time.process_time() - start < 1.5  # byte after byte in Python it takes 2.5 s and more
