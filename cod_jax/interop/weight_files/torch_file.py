"""Read torch files: the zip archive of torch 1.6 and later, and the pickle sequence of earlier versions."""

import io
import struct
import zipfile
from typing import Any, BinaryIO

import numpy as np

from cod_jax.errors import UserError, quoted
from cod_jax.interop.weight_files.plain_pickle import ADVICE, Name, PicklePosition, Skipped
from cod_jax.interop.weight_files.raw_values import DAMAGED, Record, as_values, read_bytes, value_type
from cod_jax.interop.weight_files.torch_pickle import Storage, Tensor, load_torch_pickle

MAX_PICKLE_BYTES = 64 * 2**20
# The directory of a zip archive has about 100 bytes for each record, and real files some thousand records.
MAX_DIRECTORY_BYTES = 8 * 2**20
MAX_DEPTH = 64
MAX_VALUES = 500_000
# Tensors may share storage; beyond this many times the file's size they were made to exhaust memory.
MAX_EXPANSION = 8

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def read_zip(file: BinaryIO, file_bytes: int) -> Any:
    """Read an archive of torch 1.6 or later, as it is nested.

    Args:
        file: Open for reading.
        file_bytes: Its length.

    Raises:
        UserError: The file is damaged or asks for more than tensors; the message does not name the file.
    """
    records = _zip_records(file, file_bytes)
    contents = [name for name in records if name.endswith("/data.pkl") or name == "data.pkl"]
    if len(contents) != 1:
        raise UserError(
            f"expected one data.pkl in the zip archive, as in torch files, got {len(contents)}; name the torch file"
        )
    prefix = contents[0].removesuffix("data.pkl")
    if records[contents[0]].num_bytes > MAX_PICKLE_BYTES:
        raise UserError(f"its list of contents takes more than {MAX_PICKLE_BYTES} bytes; {ADVICE}")
    order = "little"
    if prefix + "byteorder" in records:
        order = read_bytes(file, records[prefix + "byteorder"], "its byte order").decode("latin-1")
    if order not in ("little", "big"):
        raise UserError(f"expected its byte order to be little or big, got {quoted(order)}; {DAMAGED}")
    value = load_torch_pickle(PicklePosition(read_bytes(file, records[contents[0]], "its list of contents")))
    storages = {
        name.removeprefix(prefix + "data/"): record
        for name, record in records.items()
        if name.startswith(prefix + "data/")
    }
    return _Builder(file, file_bytes, storages, "<" if order == "little" else ">").build(value, 0)


def _zip_records(file: BinaryIO, file_bytes: int) -> dict[str, Record]:
    """Return the records of a zip archive, none of them compressed or outside the file."""
    file.seek(0)
    try:
        with zipfile.ZipFile(_ShortReads(file)) as archive:
            entries = archive.infolist()
    except UserError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, EOFError, OSError):
        raise UserError(f"its zip directory cannot be read; {DAMAGED}") from None
    records: dict[str, Record] = {}
    for entry in entries:
        name = quoted(entry.filename)
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise UserError(f"its record {name} is compressed or encrypted, unlike torch files; {ADVICE}")
        file.seek(max(entry.header_offset, 0))
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04" or entry.header_offset < 0:
            raise UserError(f"its record {name} is not where the zip directory says; {DAMAGED}")
        offset = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if offset + entry.file_size > file_bytes or entry.filename in records:
            raise UserError(f"its record {name} is listed twice or reaches past the end; {DAMAGED}")
        records[entry.filename] = Record(offset, entry.file_size, entry.CRC)
    if sum(record.num_bytes for record in records.values()) > file_bytes:
        raise UserError(f"its zip records overlap; {DAMAGED}")
    return records


class _ShortReads(io.RawIOBase):
    """A file of which a zip archive's directory is read, as one piece, if it is not longer than any real one."""

    def __init__(self, file: BinaryIO):
        self.file = file

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        """Return bytes from the position."""
        if size > MAX_DIRECTORY_BYTES:
            raise UserError(f"its zip directory has more than {MAX_DIRECTORY_BYTES} bytes; {ADVICE}")
        return self.file.read(size)


def read_legacy(file: BinaryIO, file_bytes: int) -> Any:
    """Read a pickle sequence of torch before 1.6, as it is nested; see `read_zip`."""
    file.seek(0)
    source = PicklePosition(file.read(MAX_PICKLE_BYTES))
    magic = load_torch_pickle(source)
    if magic != _LEGACY_MAGIC:
        raise UserError(f"expected a pickle that torch wrote, got another one; {ADVICE}")
    version = load_torch_pickle(source)
    if version != _LEGACY_VERSION:
        raise UserError(
            f"expected version {_LEGACY_VERSION} of torch's format, got {quoted(str(version))}; save it again with a "
            "newer torch"
        )
    load_torch_pickle(source)
    storages: dict[str, Storage] = {}
    value = load_torch_pickle(source, storages)
    keys = load_torch_pickle(source)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len({*keys}) != len(keys):
        raise UserError(f"its list of storages is not a list of different names; {DAMAGED}")
    records: dict[str, Record] = {}
    position = source.position
    for key in keys:
        if key not in storages:
            raise UserError(f"it lists a storage {quoted(key)} that no tensor uses; {DAMAGED}")
        count = int.from_bytes(read_bytes(file, Record(position, 8), f"storage {quoted(key)}"), "little")
        num_bytes = count * value_type(storages[key].code).num_bytes
        if num_bytes > file_bytes - position - 8:
            raise UserError(
                f"storage {quoted(key)} claims {num_bytes} bytes and {file_bytes - position - 8} follow; {DAMAGED}"
            )
        records[key] = Record(position + 8, num_bytes)
        position += 8 + num_bytes
    return _Builder(file, file_bytes, records, "<").build(value, 0)


class _Builder:
    """Turns descriptions of tensors into arrays; every storage is read once and shared by its tensors."""

    def __init__(self, file: BinaryIO, file_bytes: int, records: dict[str, Record], byte_order: str):
        self.file = file
        self.records = records
        self.byte_order = byte_order
        self.values_left = MAX_VALUES
        self.bytes_left = MAX_EXPANSION * max(file_bytes, 2**20)
        self.bytes_of: dict[str, bytes] = {}
        self.arrays: dict[tuple[str, str], np.ndarray] = {}

    def build(self, value: Any, depth: int) -> Any:
        """Return `value` with arrays in it; a container that is there twice is copied, so the result is a tree."""
        self.values_left -= 1
        if depth > MAX_DEPTH or self.values_left < 0:
            raise UserError(f"it nests more than {MAX_DEPTH} deep or holds more than {MAX_VALUES} values; {ADVICE}")
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, Name | Storage):
            return Skipped(value.text if isinstance(value, Name) else "a storage without a tensor")
        if isinstance(value, dict):
            return {name: self.build(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self.build(item, depth + 1) for item in value])
        return value

    def tensor(self, tensor: Tensor) -> np.ndarray:
        """Return the array of a tensor, a view of its storage."""
        values = self.storage(tensor.storage)
        num_bytes = values.itemsize * int(np.prod(tensor.shape, dtype=np.int64))
        self.bytes_left -= num_bytes
        if self.bytes_left < 0:
            raise UserError(f"its tensors repeat their values to more than {MAX_EXPANSION} times the file; {ADVICE}")
        if not num_bytes:
            return np.ndarray(tensor.shape, values.dtype, b"")
        strides = tuple(stride * values.itemsize for stride in tensor.strides)
        offset = (tensor.storage.first + tensor.offset) * values.itemsize
        return np.ndarray(tensor.shape, values.dtype, values.data, offset, strides)

    def storage(self, storage: Storage) -> np.ndarray:
        """Return all values of a storage."""
        name = (storage.key, storage.code)
        if name not in self.arrays:
            kind = value_type(storage.code)
            record = self.records.get(storage.key)
            found = "none" if record is None else record.num_bytes
            if record is None or found != storage.num_values * kind.num_bytes:
                raise UserError(
                    f"storage {quoted(storage.key)} needs {storage.num_values * kind.num_bytes} bytes and the file has "
                    f"{found}; {DAMAGED}"
                )
            if storage.key not in self.bytes_of:
                self.bytes_of[storage.key] = read_bytes(self.file, record, f"storage {quoted(storage.key)}")
            self.arrays[name] = as_values(self.bytes_of[storage.key], kind, self.byte_order)
        return self.arrays[name]
