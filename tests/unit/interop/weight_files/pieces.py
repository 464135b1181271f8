"""Pieces of torch and safetensors files, written by hand, and how a refusal looks."""

import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cod_jax.interop import read_state_dict

# Files that torch and safetensors wrote.
FORMATS = Path(__file__).parents[3] / "parity" / "helpers" / "formats"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED_DICT = b"ccollections\nOrderedDict\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def storage(key: str = "0", count: int = 6, kind: str = "Float") -> bytes:
    return (
        b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + integer(count) + b"tQ"
    )


def tensor(stored: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    hooks = ORDERED_DICT + b")R"
    return REBUILD + b"(" + stored + integer(offset) + sizes(*shape) + sizes(*strides) + b"\x89" + hooks + b"tR"


def entry(value: bytes, name: str = "a") -> bytes:
    """Return the pickle of {name: value}."""
    return b"\x80\x02}" + text(name) + value + b"s."


def write_zip(path: Path, contents: bytes, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", contents)
        for name, data in (records or {"data_0": np.arange(6, dtype="<f4").tobytes()}).items():
            archive.writestr("archive/" + name.replace("_", "/"), data)
    return path


def write_legacy(path: Path, contents: bytes, keys: list[str], data: bytes, version: int = 1001) -> Path:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    system = pickle.dumps({"little_endian": True}, 2)
    path.write_bytes(magic + pickle.dumps(version, 2) + system + contents + pickle.dumps(keys, 2) + data)
    return path


def write_safetensors(path: Path, table: object, data: bytes = b"") -> Path:
    header = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def refused(path: Path) -> str:
    """Return the message of the refusal, which is one line that begins with the path."""
    with pytest.raises(ValueError, match=path.name) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 600
    return message.removeprefix(f"{path}: ")


def nested(**values: bytes) -> bytes:
    return b"}" + b"".join(text(name) + value + b"s" for name, value in values.items())
