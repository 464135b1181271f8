"""Reads weight files, model folders and compiled folders as a fuzzer makes them.

An input is a fault if it raises anything but a `UserError`.
"""

import contextlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import yaml

from cod_jax.codec.compiled_engine import CompiledEngine
from cod_jax.coding.entropy import SymbolFormat
from cod_jax.coding.symbols import LARGEST_SYMBOL
from cod_jax.errors import UserError
from cod_jax.interop import read_state_dict
from cod_jax.interop.cod_networks.description import reference_config
from cod_jax.interop.cod_networks.yaml_file import read_network
from cod_jax.model_folder.bundle import load_description
from cod_jax.model_folder.description import DESCRIPTION_FILE, read_fingerprints
from cod_jax.model_folder.prior_file import PRIOR_FILE, load_prior
from cod_jax.runtime.folder import CHECKSUM, checksum_of
from cod_jax.runtime.folder import DESCRIPTION_FILE as COMPILED_FILE
from tests.fuzz.target import Target
from tests.golden.folder import FOLDER, version_0_1
from tests.published_networks import LITE_ARGUMENTS, PIXEL_ARGUMENTS
from tests.unit.interop.weight_files.pieces import FORMATS, entry, integer, storage, tensor, text, write_zip


def safetensors(scratch: Path) -> Target:
    """Tables of safetensors files, with the length in front that they need."""
    data = bytes(256)

    def read(table: bytes) -> None:
        (scratch / "a.safetensors").write_bytes(struct.pack("<Q", len(table)) + table + data)
        _read_weights(scratch / "a.safetensors")

    table = {"a": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]}}
    table |= {"b": {"dtype": "BF16", "shape": [64], "data_offsets": [128, 256]}, "__metadata__": {"format": "pt"}}
    return Target([json.dumps(table).encode()], read)


def zip_archives(scratch: Path) -> Target:
    """Torch files from 1.6 on, as they are."""
    return _weight_files(scratch, "*_zip.pth")


def legacy(scratch: Path) -> Target:
    """Torch files before 1.6, as they are."""
    return _weight_files(scratch, "*_legacy.pth")


def torch(scratch: Path) -> Target:
    """The pickle in a torch file, in an archive that is whole."""
    records = {f"data_{number}": bytes(24) for number in range(3)}

    def read(contents: bytes) -> None:
        _read_weights(write_zip(scratch / "a.pth", contents, **records))

    two = tensor(storage(), (6,), (1,)) + b"s" + text("b") + tensor(storage("1"), (2, 3), (3, 1))
    beside = b"}" + text("x") + b"cargparse\nNamespace\n)\x81}" + integer(2) + b"\x8f(K\x01\x90sbs"
    wrapped = (
        text("more") + beside + b"s" + text("state_dict") + b"}" + text("w") + tensor(storage(), (6,), (1,)) + b"s"
    )
    seeds = [entry(two), b"\x80\x02}" + wrapped + b"s.", entry(b"](K\x01G" + bytes(8) + b"N)\x88\x85eq\x00h\x00\x86")]
    return Target(seeds, read)


def yaml_files(scratch: Path) -> Target:
    """YAML files of published networks."""

    def read(data: bytes) -> None:
        (scratch / "a.yaml").write_bytes(data)
        with contextlib.suppress(UserError):
            network = read_network(scratch / "a.yaml")
            reference_config(network.class_name, network.init_args)

    sections = [{"class_path": "a.DConv", "init_args": LITE_ARGUMENTS}, {"init_args": PIXEL_ARGUMENTS}]
    contents = [{"model": {"denoiser": sections[0]}}, {"model": sections[1], "ckpt_prefix": "net."}]
    seeds = [yaml.safe_dump(content).encode() for content in contents]
    return Target([*seeds, b"a: &a 1\nmodel: {net: {class_path: DDT, dict_kwargs: {b: *a, c: 1:2.5}}}"], read)


def model_json(scratch: Path) -> Target:
    """Descriptions of model folders."""

    def read(data: bytes) -> None:
        (scratch / DESCRIPTION_FILE).write_bytes(data)
        for function in (load_description, read_fingerprints):
            with contextlib.suppress(UserError):
                function(scratch)

    return Target(_found(DESCRIPTION_FILE), read)


def compiled(scratch: Path) -> Target:
    """Descriptions of compiled folders, with the checksum that they need."""
    source = next(path.parent for path in version_0_1().rglob(COMPILED_FILE))
    folder = Path(shutil.copytree(source, scratch / "compiled"))

    def read(data: bytes) -> None:
        (folder / COMPILED_FILE).write_bytes(_with_checksum(data))
        with contextlib.suppress(UserError):
            CompiledEngine(folder)

    return Target(_found(COMPILED_FILE), read)


def prior(scratch: Path) -> Target:
    """Priors of models with a codebook and with a factorized bottleneck."""

    def read(data: bytes) -> None:
        (scratch / PRIOR_FILE).write_bytes(data)
        for symbols in (SymbolFormat(1, 0, 15), SymbolFormat(3, -LARGEST_SYMBOL, LARGEST_SYMBOL, num_levels=2)):
            with contextlib.suppress(UserError):
                load_prior(scratch, symbols)

    return Target([path.read_bytes() for path in sorted(FOLDER.rglob(PRIOR_FILE))], read)


READERS: dict[str, Callable[[Path], Target]] = {
    "torch": torch,
    "zip": zip_archives,
    "legacy": legacy,
    "safetensors": safetensors,
    "yaml": yaml_files,
    "model_json": model_json,
    "compiled": compiled,
    "prior": prior,
}


def _weight_files(scratch: Path, pattern: str) -> Target:
    def read(data: bytes) -> None:
        (scratch / "a.pth").write_bytes(data)
        _read_weights(scratch / "a.pth")

    return Target([path.read_bytes() for path in sorted(FORMATS.glob(pattern))], read)


def _read_weights(path: Path) -> None:
    try:
        tensors = read_state_dict(path)
    except UserError:
        return
    for value in tensors.values():
        value.tobytes()  # every number is where the file says


def _found(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(version_0_1().rglob(name))]


def _with_checksum(data: bytes) -> bytes:
    try:
        values = json.loads(data)
        values.pop(CHECKSUM, None)
        return json.dumps({**values, CHECKSUM: checksum_of(values)}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return data
