"""Descriptions of compiled folders, and files that are not what they say."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from jax import export

import cod_jax
from cod_jax.codec import load_compiled
from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.model_folder.prior_file import PRIOR_FILE
from cod_jax.models import FactorizedConfig, build_model
from cod_jax.runtime.folder import DESCRIPTION_FILE, read_description
from cod_jax.specialize.folder import write_compiled
from tests.golden.folder import version_0_1
from tests.model_fixtures import gradient_image, numpy_params, tiny_model_config
from tests.unit.runtime.damage import replace_file, use, write_description


@pytest.mark.parametrize(
    "name", ["encode.safetensors", "decode.safetensors", "encode-cpu-0.stablehlo", "decode-cpu-0.stablehlo"]
)
def test_a_changed_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is damaged: its checksum is wrong; copy the folder again"):
        use(copy)
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(UserError, match=f"{name} has {len(data) - 1} bytes instead of {len(data)}"):
        use(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        use(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(format="cod_jax model"), "does not describe a compiled model"),
        (lambda values: values.update(version=3), "has version 3 of the format and this cod_jax reads version 2"),
        (lambda values: values.update(weights_fingerprint="abc"), "damaged .weights_fingerprint is 'abc'"),
        (lambda values: values.update(pitch=True), "damaged .pitch is 'True'"),
        (lambda values: values.update(size_multiple=24), "size_multiple 24 is not a multiple of pitch 16"),
        (lambda values: values.update(codebook_bits=17), "damaged .codebook_bits is '17'"),
        (lambda values: values.update(dtype="float16"), "damaged .dtype is 'float16'"),
        (lambda values: values.update(programs={}), "damaged .programs is '{}'"),
        (lambda values: values.pop("files"), "damaged .files is 'None'"),
        (lambda values: values["files"].update({"../x": {}}), "damaged .file is '../x'"),
        (lambda values: values["files"].pop("decode.safetensors"), "'decode.safetensors' is not among its files"),
        (lambda values: values["programs"][0].update(file="/etc/passwd"), "'/etc/passwd' is not among its files"),
        (lambda values: values["programs"][0].update(platform="abacus"), "damaged .platform is 'abacus'"),
        (lambda values: values["programs"][0]["sizes"].update(rows=[1]), "damaged .rows is"),
        (lambda values: values.update(symbols={"first": 0, "last": 2**20}), "damaged .last is '1048576'"),
        (lambda values: values.update(symbols={"first": 3, "last": 2}), "damaged .the symbols are 3 to 2"),
        (lambda values: values.update(symbols={"first": 0, "last": 2}), "damaged .num_channels is 'None'"),
    ],
)
def test_a_changed_description_is_refused(copy, change, message):
    values = json.loads((copy / DESCRIPTION_FILE).read_text())
    change(values)
    write_description(copy, values)
    with pytest.raises(UserError, match=message):
        cod_jax.load(copy)


def test_a_change_of_any_byte_of_the_description_is_refused(copy):
    file = copy / DESCRIPTION_FILE
    data, described = file.read_bytes(), read_description(copy)
    with file.open("r+b", buffering=0) as opened:
        for place, byte in enumerate(data):
            opened.seek(place)
            opened.write(bytes([byte ^ 1 << place % 8]))
            with pytest.raises(UserError, match=str(copy)):
                read_description(copy)
            opened.seek(place)
            opened.write(bytes([byte]))
    assert read_description(copy) == described
    file.write_bytes(json.dumps(json.loads(data)).encode())
    assert read_description(copy) == described
    values = json.loads(data)
    file.write_text(json.dumps({**values, "jax_version": "0.0.1"}))
    with pytest.raises(UserError, match=r"compiled.json is damaged \(its checksum is wrong\); copy the folder again"):
        cod_jax.load(copy)


def test_what_is_not_a_compiled_model_is_refused(copy, tmp_path):
    with pytest.raises(UserError, match="does not exist; give a folder written by cod compile"):
        load_compiled(tmp_path / "missing")
    with pytest.raises(UserError, match=r"to hold compiled.json; cod compile makes"):
        load_compiled(tmp_path)
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        (copy / DESCRIPTION_FILE).write_bytes(content)
        with pytest.raises(UserError, match=r"compiled.json is damaged .*; copy the folder again"):
            load_compiled(copy)
    (copy / DESCRIPTION_FILE).write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UserError, match="longer than 1048576 bytes"):
        load_compiled(copy)


def test_a_folder_with_its_sha256_is_used_and_any_other_is_refused_before_its_programs_are_read(
    folder: Path, copy: Path, monkeypatch
):
    sha256 = read_description(folder).sha256
    assert sha256 == json.loads((folder / DESCRIPTION_FILE).read_text())["sha256"]
    assert repr(cod_jax.load(folder, sha256=sha256)) == repr(load_compiled(folder, sha256=sha256))
    program = bytearray((copy / "encode-cpu-0.stablehlo").read_bytes())
    program[len(program) // 2] ^= 1
    replace_file(copy, "encode-cpu-0.stablehlo", bytes(program))
    monkeypatch.setattr(export, "deserialize", lambda _: pytest.fail("it was read"))
    with pytest.raises(UserError, match=f"to have the SHA-256 {sha256}, got .*; it is another folder or was changed"):
        cod_jax.load(copy, sha256=sha256)
    # With the description put back, the file is what differs.
    shutil.copy(folder / DESCRIPTION_FILE, copy)
    codec = cod_jax.load(copy, sha256=sha256)
    with pytest.raises(UserError, match=r"encode-cpu-0\.stablehlo is damaged: its checksum is wrong"):
        codec.compress(gradient_image(16, 16))


def test_a_sha256_of_another_form_or_for_a_model_folder_is_refused(folder: Path, tmp_path: Path):
    for other in ("abc", read_description(folder).sha256.upper(), "sha256:"):
        with pytest.raises(UserError, match=r"expected a SHA-256 of 64 hex digits in lower case, got '.*'; cod"):
            cod_jax.load(folder, sha256=other)
    with pytest.raises(UserError, match="expected a compiled folder for the SHA-256, got"):
        cod_jax.load(tmp_path, sha256="0" * 64)


def test_folders_of_version_0_1_have_a_sha256_too():
    folders = [path.parent for path in version_0_1().rglob(DESCRIPTION_FILE)]
    assert folders
    for folder in folders:
        assert read_description(folder).sha256 == json.loads((folder / DESCRIPTION_FILE).read_text())["sha256"]


@pytest.mark.parametrize("name", [PRIOR_FILE, "encode-cpu-0.stablehlo"])
def test_a_sparse_file_is_refused_unread(copy: Path, name: str):
    with (copy / name).open("wb") as file:
        file.truncate(3 * 2**30)
    values = json.loads((copy / DESCRIPTION_FILE).read_text())
    values["files"][name] = {"num_bytes": 3 * 2**30, "sha256": "0" * 64}
    write_description(copy, values)
    with pytest.raises(UserError, match=rf"compiled.json is damaged \({name} has more than 67108864 bytes\)"):
        cod_jax.load(copy)


def test_weights_that_no_program_takes_are_not_read(copy: Path, monkeypatch):
    name = "encode.safetensors"
    with (copy / name).open("r+b") as file:
        table_bytes = int.from_bytes(file.read(8), "little")
        table = json.loads(file.read(table_bytes))
        last = max(entry["data_offsets"][1] for entry in table.values() if "data_offsets" in entry)
        table["more"] = {"dtype": "F32", "shape": [2**29], "data_offsets": [last, last + 2**31]}
        header = json.dumps(table).encode()
        file.seek(0)
        file.write(len(header).to_bytes(8, "little") + header)
        num_bytes = 8 + len(header) + last + 2**31
        file.truncate(num_bytes)
    values = json.loads((copy / DESCRIPTION_FILE).read_text())
    values["files"][name] = {"num_bytes": num_bytes, "sha256": "0" * 64}
    write_description(copy, values)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"takes other weights than encode.safetensors holds"):
        use(copy)


def test_messages_repeat_little_of_a_description(copy: Path):
    values = json.loads((copy / DESCRIPTION_FILE).read_text())
    for name in ("version", "format", "dtype", "jax_version", "pitch"):
        write_description(copy, {**values, name: "x" * 500_000})
        with pytest.raises(UserError) as caught:
            cod_jax.load(copy)
        assert len(str(caught.value)) < 600


@pytest.fixture(scope="module")
def factorized_folder(tmp_path_factory) -> Path:
    """Return a compiled model of two quality levels without a codebook."""
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=2))
    folder = tmp_path_factory.mktemp("factorized")
    save_bundle(folder / "model", config, numpy_params(build_model(config).shapes), training={})
    write_compiled(folder / "c", load_bundle(folder / "model"), platforms=["cpu"], dtype="float32")
    return folder / "c"


@pytest.fixture
def factorized_copy(factorized_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of it to be changed."""
    return Path(shutil.copytree(factorized_folder, tmp_path / "copy"))


def test_a_factorized_model_needs_its_tables(factorized_copy: Path):
    values = json.loads((factorized_copy / DESCRIPTION_FILE).read_text())
    del values["files"][PRIOR_FILE]
    write_description(factorized_copy, values)
    with pytest.raises(UserError, match=r"has no prior.safetensors .no tables code the .*; make the folder again"):
        cod_jax.load(factorized_copy)


def test_the_tables_of_a_factorized_model_must_be_those_of_its_symbols(factorized_folder: Path, factorized_copy: Path):
    tables = safetensors.numpy.load((factorized_folder / PRIOR_FILE).read_bytes())
    fewer = {
        r"\(1, 8\)": {name: table[:1] for name, table in tables.items()},
        r"\(2, 7\)": {name: np.ascontiguousarray(table[:, :7]) for name, table in tables.items()},
    }
    for given, other in fewer.items():
        replace_file(factorized_copy, PRIOR_FILE, safetensors.numpy.save(other))
        with pytest.raises(UserError, match=rf"expected tables of \(levels, channels\) \(2, 8\) .*, got {given}"):
            cod_jax.load(factorized_copy)
    replace_file(factorized_copy, PRIOR_FILE, (factorized_folder / PRIOR_FILE).read_bytes())
    assert cod_jax.load(factorized_copy).num_levels == 2


def test_older_folders_tell_their_symbols_by_their_bins(factorized_copy: Path):
    values = json.loads((factorized_copy / DESCRIPTION_FILE).read_text())
    assert values.pop("symbols") == {"num_channels": 8, "first": -32767, "last": 32767, "num_levels": 2}
    write_description(factorized_copy, values)
    assert (cod_jax.load(factorized_copy).num_levels, cod_jax.load(factorized_copy).symbols.num_channels) == (2, 8)
    replace_file(factorized_copy, "decode.safetensors", safetensors.numpy.save({"other": np.zeros(3, np.float32)}))
    with pytest.raises(UserError, match=r"decode.safetensors is damaged \(it has no bins \[levels, channels\]\); make"):
        cod_jax.load(factorized_copy)
    bins = {"bottleneck/step": np.zeros((2, 9), np.float32)}
    replace_file(factorized_copy, "decode.safetensors", safetensors.numpy.save(bins))
    with pytest.raises(UserError, match=r"encodes other symbols than it decodes; make the folder again"):
        cod_jax.load(factorized_copy)
