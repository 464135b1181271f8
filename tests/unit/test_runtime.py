"""Compiled models do what the models do, without their code, and refuse what is damaged."""

import dataclasses
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import export

from cod_jax import runtime
from cod_jax.codec import Codec
from cod_jax.coding.factorized import ChannelTables, FactorizedPrior
from cod_jax.coding.prior import SymbolPrior
from cod_jax.model_folder.bundle import Bundle, load_bundle, save_bundle
from cod_jax.models import FactorizedConfig, build_model
from cod_jax.nn import attention
from cod_jax.runtime import programs as runtime_programs
from cod_jax.runtime.arrays import read_arrays
from cod_jax.runtime.codec import CompiledCodec
from cod_jax.runtime.folder import DESCRIPTION_FILE, Dtype, Part, checksum_of, read_description
from cod_jax.specialize import programs
from cod_jax.specialize.folder import write_compiled
from tests.model_fixtures import (
    gradient_image,
    numpy_params,
    tiny_bundle,
    tiny_codec,
    tiny_model_config,
    tiny_pixel_config,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def compiled(folder: Path, dtype: Dtype = "float32", **codec_fields) -> CompiledCodec:
    write_compiled(folder, tiny_bundle(**codec_fields), platforms=["cpu"], dtype=dtype)
    return runtime.load(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "tiny"
    write_compiled(path, tiny_bundle(), platforms=["cpu"], dtype="float32")
    return path


@pytest.fixture(scope="module")
def codec(folder) -> CompiledCodec:
    return runtime.load(folder)


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (32, 48), (17, 33)])
def test_files_and_pictures_are_those_of_the_model(codec, size):
    image_uint8 = gradient_image(*size)
    data = codec.compress(image_uint8)
    assert data == tiny_codec().compress(image_uint8)
    decoded = codec.decompress(data)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (*size, 3))
    # Compiled in other pieces, float32 may round a value to the neighbouring level.
    assert levels_apart(decoded, tiny_codec().decompress(data)) <= 1
    assert codec.fingerprint == tiny_bundle().fingerprint


@pytest.fixture(scope="module")
def windowed_codec(tmp_path_factory) -> CompiledCodec:
    return compiled(tmp_path_factory.mktemp("windowed") / "c", attention="window_published")


@pytest.mark.parametrize("cells", [(1, 33), pytest.param((33, 1), marks=pytest.mark.slow)])
def test_windows_are_cut_as_in_the_model(windowed_codec, cells):
    # One side beyond a window of 32 symbols, so that the other is padded to it.
    image_uint8 = gradient_image(16 * cells[0], 16 * cells[1])
    plain = tiny_codec(attention="window_published")
    symbols = plain.encode(image_uint8)
    np.testing.assert_array_equal(windowed_codec.encode(image_uint8[None])[0], symbols)
    decoded = windowed_codec.decode(symbols[None])[0]
    assert levels_apart(decoded, plain.decode(symbols)) <= 1 < levels_apart(decoded, tiny_codec().decode(symbols))


def test_queries_are_cut_as_in_the_model(tmp_path, monkeypatch):
    # 9 symbols are more than twice the chunk, so that the program for many of them runs.
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    for module in (attention, programs):
        monkeypatch.setattr(module, "MAX_WHOLE_QUERIES", 8)
    codec = compiled(tmp_path / "c")
    monkeypatch.undo()
    image_uint8 = gradient_image(48, 48)
    symbols = tiny_codec().encode(image_uint8)
    np.testing.assert_array_equal(codec.encode(image_uint8[None])[0], symbols)
    assert levels_apart(codec.decode(symbols[None])[0], tiny_codec().decode(symbols)) <= 1


def test_symbols_finer_than_the_patch_grid(tmp_path):
    codec, plain = compiled(tmp_path / "c", pitch=8), tiny_codec(pitch=8)
    image_uint8 = gradient_image(24, 15)
    symbols = codec.encode(image_uint8[None])
    np.testing.assert_array_equal(symbols, plain.encode(image_uint8)[None])
    assert symbols.shape == (1, 3, 2)
    assert levels_apart(codec.decode(symbols)[0], plain.decode(symbols[0])) <= 1


@pytest.mark.slow
def test_bfloat16_stays_close(tmp_path, codec):
    rounded = compiled(tmp_path / "c", dtype="bfloat16")
    files = {path.name: path.stat().st_size for path in (tmp_path / "c").iterdir()}
    assert files["decode.safetensors"] < 0.6 * 4 * 236_539
    symbols = np.random.default_rng(0).integers(0, 16, (1, 2, 3)).astype(np.int32)
    difference = rounded.decode(symbols).astype(float) - codec.decode(symbols)
    # A random network; 40 dB are a root mean square of 2.5 levels.
    assert 10 * np.log10(255**2 / np.mean(difference**2)) > 40
    assert rounded.encode(gradient_image(32, 48)[None]).shape == (1, 2, 3)


def test_pictures_of_a_list_are_computed_together(codec, monkeypatch):
    batches = []

    def recorded(call: Callable) -> Callable:
        def record(batch, cells):
            batches.append(batch.shape[0])
            return call(batch, cells)

        return record

    # As many as fit 2 of the larger pictures.
    monkeypatch.setattr("cod_jax.runtime.codec.BATCH_PIXELS", 2 * 32 * 48)
    pictures = [gradient_image(32, 48), gradient_image(1, 1), *(gradient_image(32, 48)[::-1] for _ in range(2))]
    pictures = [np.ascontiguousarray(picture) for picture in pictures]
    monkeypatch.setattr(codec, "_encode", recorded(codec._encode))
    monkeypatch.setattr(codec, "_decode", recorded(codec._decode))
    data = codec.compress(pictures)
    # Three pictures in two batches of two, the last filled up.
    assert batches == [2, 2, 1]
    assert data == tiny_codec().compress(pictures)
    decoded = codec.decompress(data)
    assert batches == [2, 2, 1, 2, 2, 1]
    for one, other in zip(decoded, tiny_codec().decompress(data), strict=True):
        assert levels_apart(one, other) <= 1
    assert codec.compress([]) == codec.decompress([]) == []


def test_the_prior_comes_along(tmp_path):
    counts = np.full(16, 2048, np.int32)
    counts[3] += 2**16 - counts.sum()
    bundle = dataclasses.replace(tiny_bundle(), prior=SymbolPrior(counts))
    write_compiled(tmp_path / "c", bundle, platforms=["cpu"], dtype="float32")
    codec, plain = runtime.load(tmp_path / "c"), Codec(bundle)
    assert codec.fingerprint == plain.fingerprint != bundle.fingerprint
    image_uint8 = gradient_image(32, 48)
    data = codec.compress(image_uint8)
    assert data == plain.compress(image_uint8)
    assert codec.decompress(data).shape == (32, 48, 3)
    (tmp_path / "c" / "prior.safetensors").write_bytes(b"\x00" * (tmp_path / "c" / "prior.safetensors").stat().st_size)
    with pytest.raises(ValueError, match=r"prior.safetensors is damaged"):
        runtime.load(tmp_path / "c")


@pytest.fixture(scope="module")
def factorized(tmp_path_factory) -> tuple[Codec, CompiledCodec]:
    """A model of two quality levels without a codebook, plain and compiled."""
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=2))
    params = numpy_params(build_model(config).shapes)
    # Latents are about one; steps of 1 and of 1/4.
    params["codec"]["bottleneck"]["log_gains"][:] = np.log([[1.0], [4.0]])
    folder = tmp_path_factory.mktemp("factorized")
    save_bundle(folder / "model", config, params, training={})
    write_compiled(folder / "c", load_bundle(folder / "model"), platforms=["cpu"], dtype="float32")
    return Codec(load_bundle(folder / "model")), runtime.load(folder / "c")


def test_every_quality_of_a_factorized_bottleneck_is_that_of_the_model(factorized):
    plain, codec = factorized
    picture = gradient_image(20, 40)
    files = [plain.compress(picture, quality=quality) for quality in (1, 2)]
    assert codec.num_levels == plain.num_levels == len(set(files)) == 2
    assert codec.fingerprint == plain.fingerprint
    assert "8 numbers for 16x16 pixels" in repr(codec)
    assert [codec.compress(picture, quality=quality) for quality in (1, 2)] == files
    assert codec.compress([picture, picture]) == [files[1]] * 2
    symbols = codec.encode(np.stack([picture, picture]), level=[0, 1])
    for level in (0, 1):
        np.testing.assert_array_equal(symbols[level], plain.encode(picture, level=level))
    # Files of both levels are decoded together.
    for one, data in zip(codec.decompress(files), files, strict=True):
        assert levels_apart(one, plain.decompress(data, steps=1)) <= 1
    assert levels_apart(*codec.decode(symbols[[1, 1]], level=[0, 1])) > 1
    np.testing.assert_array_equal(codec.decode(symbols[1:]), codec.decode(symbols[1:], level=1))


def test_what_a_factorized_model_does_not_have_is_refused(factorized):
    _, codec = factorized
    picture = gradient_image(16, 16)
    for quality in (0, 3, 1.0, True):
        with pytest.raises(ValueError, match=f"the quality is {quality}, and this model has the qualities 1 to 2"):
            codec.compress(picture, quality=quality)
    with pytest.raises(ValueError, match="no codebook, and legacy-lite holds the symbols of one"):
        codec.compress(picture, layout="legacy-lite")
    symbols = np.zeros((1, 1, 1, 8), np.int32)
    with pytest.raises(ValueError, match=r"symbols of shape \(1, 1, 1, 7\) are no \[batch, rows, columns, 8\]"):
        codec.decode(symbols[..., 1:])
    with pytest.raises(ValueError, match="the symbols are 32768 to 32768; those of this model are -32767 to 32767"):
        codec.decode(symbols + 2**15)
    for level in (2, -1):
        with pytest.raises(ValueError, match=f"the level is {level}, and this model has the levels 0 to 1"):
            codec.decode(symbols, level=level)
    with pytest.raises(ValueError, match=r"the level is \[0, 1\]; give a whole number, or one for each of 1 pictures"):
        codec.encode(picture[None], level=[0, 1])


def test_a_factorized_model_needs_its_tables(factorized, tmp_path):
    _, codec = factorized
    copy = Path(shutil.copytree(codec._encode._folder, tmp_path / "copy"))
    values = json.loads((copy / DESCRIPTION_FILE).read_text())
    del values["files"]["prior.safetensors"]
    write_description(copy, values)
    with pytest.raises(ValueError, match=r"has no prior.safetensors, which codes the symbols of its model; make the"):
        runtime.load(copy)


def test_the_tables_of_a_factorized_model_must_be_those_of_its_weights(factorized, tmp_path):
    plain, codec = factorized
    copy = Path(shutil.copytree(codec._encode._folder, tmp_path / "copy"))
    message = r"tables that code the symbols are for \(levels, channels\) {}, but the model has \(2, 8\)"
    prior = plain._coder.prior
    fewer = [
        FactorizedPrior(prior.levels[:1]),
        FactorizedPrior((ChannelTables(*(a[:7] for a in prior.levels[0])),) * 2),
    ]
    for other, text in zip(fewer, (r"\(1, 8\)", r"\(2, 7\)"), strict=True):
        replace_file(copy, "prior.safetensors", safetensors.numpy.save(other.to_arrays()))
        with pytest.raises(ValueError, match=message.format(text)):
            runtime.load(copy)
    shutil.copy(codec._encode._folder / "prior.safetensors", copy)
    replace_file(copy, "prior.safetensors", (copy / "prior.safetensors").read_bytes())
    assert runtime.load(copy).num_levels == 2
    replace_file(copy, "decode.safetensors", safetensors.numpy.save({"other": np.zeros(3, np.float32)}))
    with pytest.raises(ValueError, match=r"decode.safetensors is damaged .the entry of tensor 'bottleneck/step' is"):
        runtime.load(copy)


def test_a_factorized_model_without_its_tables_is_not_compiled(factorized, tmp_path):
    plain, codec = factorized
    bundle = load_bundle(codec._encode._folder.parent / "model", with_prior=False)
    for make in (Codec, lambda bundle: write_compiled(tmp_path / "c", bundle, platforms=["cpu"], dtype="float32")):
        with pytest.raises(ValueError, match="no codebook and no tables that code its symbols; load it with its prior"):
            make(bundle)
        with pytest.raises(ValueError, match=r"are for \(levels, channels\) \(1, 8\), but the model has \(2, 8\)"):
            make(dataclasses.replace(bundle, prior=FactorizedPrior(plain._coder.prior.levels[:1])))
    assert not (tmp_path / "c").exists()


def test_one_half_at_a_time_is_in_memory_twice(tmp_path, monkeypatch):
    num_bytes = {"encode": 4_000_000, "decode": 6_000_000}

    def unused(*_: Any) -> Any:
        raise NotImplementedError

    def split(*_: Any) -> list[programs.Half]:
        parts: tuple[Part, ...] = ("encode", "decode")
        return [programs.Half(part, {"w": np.zeros(num_bytes[part], np.uint8)}, unused, unused) for part in parts]

    monkeypatch.setattr("cod_jax.specialize.folder.split", split)
    monkeypatch.setattr("cod_jax.specialize.folder.export_program", lambda *_: b"program")
    tracemalloc.start()
    try:
        write_compiled(tmp_path / "c", tiny_bundle(), platforms=["cpu"], dtype="float32")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Both halves and the file of the first; then the second half and its file.
    assert 14_000_000 < peak < 15_000_000
    assert {path.name: path.stat().st_size // 1_000_000 for path in (tmp_path / "c").glob("*.safetensors")} == {
        "encode.safetensors": 4,
        "decode.safetensors": 6,
    }


@pytest.fixture(scope="module")
def pixel_codecs(tmp_path_factory) -> tuple[Codec, CompiledCodec]:
    """A one-step CoD, whose transformer cuts more than four queries in chunks, plain and compiled."""
    config = tiny_pixel_config()
    bundle = Bundle(config, numpy_params(build_model(config).shapes), "2" * 64, "float32", {})
    folder = tmp_path_factory.mktemp("pixel") / "c"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERY_CHUNK", 2)
        for module in (attention, programs):
            patch.setattr(module, "MAX_WHOLE_QUERIES", 4)
        write_compiled(folder, bundle, platforms=["cpu"], dtype="float32")
    return Codec(bundle), runtime.load(folder)


@pytest.mark.parametrize("size", [pytest.param((16, 16), marks=pytest.mark.slow), (40, 45)])
def test_one_step_cod_is_that_of_the_model(pixel_codecs, size):
    plain, codec = pixel_codecs
    picture = gradient_image(*size)
    data = codec.compress(picture)
    assert data == plain.compress(picture)
    assert levels_apart(codec.decompress(data), plain.decompress(data, steps=1)) <= 1


def test_published_layouts_are_written_too(codec):
    image_uint8 = gradient_image(32, 48)
    for layout in ("legacy-lite", "legacy-cod"):
        assert codec.compress(image_uint8, layout=layout) == tiny_codec().compress(image_uint8, layout=layout)


def test_published_files_keep_their_grey_border(codec):
    data = struct.pack("<HH", 50, 45) + b"\x39\x17\x24"
    picture = codec.decompress(data, layout="legacy-lite")
    assert levels_apart(picture, tiny_codec().decompress(data, layout="legacy-lite")) <= 1
    assert (picture[32:] == 128).all()
    turned = codec.decompress(struct.pack("<HH", 45, 50) + b"\x39\x17\x24", layout="legacy-cod")
    np.testing.assert_array_equal(turned, picture)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda codec: codec.compress(3), "int is no picture"),
        (lambda codec: codec.compress([gradient_image(1, 1), 3]), r"item \[1\]: int is no picture"),
        (lambda codec: codec.decompress("text"), "compressed data is bytes, not str"),
        (lambda codec: codec.decompress([b"\x01"]), r"item \[0\]: "),
        (lambda codec: codec.decompress(b"", layout="other"), "there is no layout 'other'"),
        (lambda codec: codec.encode(gradient_image(16, 16)), r"give uint8 \[batch, height, width, 3\]"),
        (lambda codec: codec.encode(gradient_image(16, 16)[None], level=-1), "the level is -1, and this model has the"),
        (lambda codec: codec.decode(np.zeros((2, 3), np.int32)), r"are no \[batch, rows, columns\]"),
        (
            lambda codec: codec.decode(np.full((1, 1, 1), 16, np.int32)),
            "the symbols are 16 to 16; those of this model are 0 to 15",
        ),
        (lambda codec: codec.decode(np.zeros((1, 1, 1), np.int32), level=1), "this model has the levels 0 to 0"),
        (lambda codec: codec.compress(gradient_image(1, 1), quality=2), "this model has one quality only; leave it"),
    ],
)
def test_wrong_input_is_refused(codec, call, message):
    with pytest.raises(ValueError, match=message):
        call(codec)


def test_large_pictures_are_refused(folder):
    codec = runtime.load(folder, max_pixels=400)
    with pytest.raises(ValueError, match="21x20 is more than the limit of 400 pixels"):
        codec.compress(gradient_image(20, 21))
    with pytest.raises(ValueError, match="21x20 is more than the limit of 400 pixels"):
        codec.decompress(tiny_codec().compress(gradient_image(20, 21)))


def test_only_jax_numpy_and_pillow_are_imported(folder):
    script = """
import sys
import numpy as np
from cod_jax import runtime

codec = runtime.load(sys.argv[1])
image_uint8 = np.zeros((16, 16, 3), np.uint8)
assert codec.decompress(codec.compress(image_uint8)).shape == image_uint8.shape
packages = {name.partition(".")[0] for name in sys.modules}
own = {name for name in sys.modules if name.startswith("cod_jax.")}
unwanted = {"flax", "optax", "orbax", "grain", "jaxtyping", "beartype", "ml_collections", "clu", "tensorflow", "torch",
            "safetensors", "tqdm", "absl"}
print(sorted(packages & unwanted), sorted(name for name in own if name.split(".")[1] not in
      ("runtime", "coding", "errors", "images", "files", "compilation_cache")))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(folder)], check=False, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (result.stdout, result.returncode) == ("[] []\n", 0), result.stderr


# Damage


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def use(path: Path) -> None:
    codec = runtime.load(path)
    codec.decompress(codec.compress(gradient_image(16, 16)))


def replace_file(path: Path, name: str, data: bytes) -> None:
    """Put another file in its place and tell the description, as somebody would who wants it to be read."""
    (path / name).write_bytes(data)
    description = json.loads((path / DESCRIPTION_FILE).read_text())
    description["files"][name] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_description(path, description)


def write_description(path: Path, values: dict) -> None:
    """Write a description with the checksum that it needs."""
    del values["sha256"]
    (path / DESCRIPTION_FILE).write_text(json.dumps({**values, "sha256": checksum_of(values)}))


@pytest.mark.parametrize(
    "name", ["encode.safetensors", "decode.safetensors", "encode-cpu-0.stablehlo", "decode-cpu-0.stablehlo"]
)
def test_a_changed_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is damaged: its checksum is wrong; copy the folder again"):
        use(copy)
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(ValueError, match=f"{name} has {len(data) - 1} bytes instead of {len(data)}"):
        use(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        use(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(format="cod_jax model"), "describes no compiled model"),
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
    ],
)
def test_a_changed_description_is_refused(copy, change, message):
    values = json.loads((copy / DESCRIPTION_FILE).read_text())
    change(values)
    write_description(copy, values)
    with pytest.raises(ValueError, match=message):
        runtime.load(copy)


def test_a_change_of_any_byte_of_the_description_is_refused(copy):
    file = copy / DESCRIPTION_FILE
    data, described = file.read_bytes(), read_description(copy)
    with file.open("r+b", buffering=0) as opened:
        for place, byte in enumerate(data):
            opened.seek(place)
            opened.write(bytes([byte ^ 1 << place % 8]))
            with pytest.raises(ValueError, match=str(copy)):
                read_description(copy)
            opened.seek(place)
            opened.write(bytes([byte]))
    assert read_description(copy) == described
    file.write_bytes(json.dumps(json.loads(data)).encode())
    assert read_description(copy) == described
    values = json.loads(data)
    file.write_text(json.dumps({**values, "jax_version": "0.0.1"}))
    with pytest.raises(ValueError, match=r"compiled.json is damaged \(its checksum is wrong\); copy the folder again"):
        runtime.load(copy)


def test_what_is_no_compiled_model_is_refused(copy, tmp_path):
    with pytest.raises(ValueError, match="does not exist; give a folder written by python -m"):
        runtime.load(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"holds no compiled.json"):
        runtime.load(tmp_path)
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        (copy / DESCRIPTION_FILE).write_bytes(content)
        with pytest.raises(ValueError, match=r"compiled.json is damaged .*; copy the folder again"):
            runtime.load(copy)
    (copy / DESCRIPTION_FILE).write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match="longer than 1048576 bytes"):
        runtime.load(copy)


def test_the_platform_must_be_there(folder, monkeypatch):
    monkeypatch.setattr(runtime_programs, "current_platform", lambda: "cuda")
    with pytest.raises(ValueError, match=r"is compiled for cpu, and JAX computes on cuda here; .*--platforms cuda"):
        runtime.load(folder)


def program_of(function: Callable, batch: Any, platform: str = "cpu", weight: str = "w") -> bytes:
    """A program of (weights, batch); the batch by its dtypes and symbolic shapes of b, h and w."""
    scope = export.SymbolicScope()
    taken = [jax.ShapeDtypeStruct(export.symbolic_shape(sizes, scope=scope), dtype) for dtype, sizes in batch]
    weights = {weight: jax.ShapeDtypeStruct((2,), np.float32)}
    exported = export.export(jax.jit(function), platforms=[platform])(weights, *taken)
    return bytes(exported.serialize())


PICTURES, SYMBOLS = (np.uint8, "b, 16*h, 16*w, 3"), (np.int32, "b, h, w")


def to_symbols(weights, pictures):
    return pictures[:, ::16, ::16, 0].astype(np.int32)


def to_pictures(weights, symbols):
    return jnp.repeat(jnp.repeat(jnp.stack([symbols] * 3, -1), 16, 1), 16, 2).astype(np.uint8)


def test_a_program_that_calls_other_code_is_refused(copy):
    def program(weights, pictures):
        return to_symbols(weights, pictures) + jnp.linalg.cholesky(jnp.eye(3))[0, 0].astype(np.int32)

    replace_file(copy, "encode-cpu-0.stablehlo", program_of(program, [PICTURES]))
    with pytest.raises(ValueError, match="calls code outside of itself"):
        use(copy)


def test_a_program_for_other_weights_is_refused_before_they_take_device_memory(copy, monkeypatch):
    monkeypatch.setattr(jax, "device_put", lambda *_: pytest.fail("weights were placed before they were checked"))
    replace_file(copy, "encode-cpu-0.stablehlo", program_of(to_symbols, [PICTURES]))
    with pytest.raises(ValueError, match=r"takes other weights than encode.safetensors holds"):
        use(copy)


def test_a_program_for_another_platform_is_refused(copy):
    replace_file(copy, "encode-cpu-0.stablehlo", program_of(to_symbols, [PICTURES], platform="cuda"))
    with pytest.raises(
        ValueError, match=r"encode-cpu-0.stablehlo is made for cuda, not for cpu; make the folder again"
    ):
        use(copy)


@pytest.mark.parametrize(
    ("function", "batch"),
    [
        (lambda weights, pictures: jnp.sum(pictures), [PICTURES]),
        (lambda weights, pictures: to_symbols(weights, pictures).astype(np.float32), [PICTURES]),
        (lambda weights, pictures: to_symbols(weights, pictures)[..., None], [PICTURES]),
        (lambda weights, pictures: to_symbols(weights, pictures)[:, :-1], [PICTURES]),
        (lambda weights, pictures: [to_symbols(weights, pictures)], [PICTURES]),
        (lambda weights, pictures: (to_symbols(weights, pictures), pictures), [PICTURES]),
        (to_symbols, [(np.float32, PICTURES[1])]),
        (to_symbols, [(np.uint8, "b, 16*h, 16*w, 4")]),
        (to_symbols, [(np.uint8, "b, 16, 16, 3")]),
        (lambda weights, pictures: to_symbols(weights, pictures[..., None]), [(np.uint8, "b, 16*h, 16*w")]),
        (lambda weights, pictures, levels: to_symbols(weights, pictures), [PICTURES, (np.int32, "b")]),
        (lambda weights: weights["w"], []),
        (to_pictures, [SYMBOLS]),
    ],
)
def test_a_program_of_another_form_is_refused(copy, function, batch):
    replace_file(copy, "encode-cpu-0.stablehlo", program_of(function, batch))
    message = f"{copy / 'encode-cpu-0.stablehlo'} takes or returns other arrays than programs that encode do; make"
    with pytest.raises(ValueError, match=message):
        use(copy)


def test_a_program_that_decodes_to_something_else_is_refused(copy):
    def use_decoder() -> None:
        programs = runtime_programs.Programs(copy, read_description(copy), "decode")
        programs(np.zeros((1, 1, 1), np.int32), (1, 1))

    def program(weights, symbols):
        return to_pictures(weights, symbols)[..., :1]

    replace_file(copy, "decode-cpu-0.stablehlo", program_of(program, [SYMBOLS]))
    with pytest.raises(
        ValueError, match=r"decode-cpu-0.stablehlo takes or returns other arrays than programs that dec"
    ):
        use_decoder()
    replace_file(copy, "decode-cpu-0.stablehlo", program_of(to_pictures, [SYMBOLS]))
    with pytest.raises(ValueError, match=r"takes other weights than decode.safetensors holds"):
        use_decoder()


def test_weights_are_taken_once_and_results_stay_on_the_device_if_asked_to(folder, codec, monkeypatch):
    programs = runtime_programs.Programs(folder, read_description(folder), "encode")
    pictures = gradient_image(32, 48)[None]
    symbols = programs.on_device(jax.device_put(pictures), (2, 3))
    assert isinstance(symbols, jax.Array)
    np.testing.assert_array_equal(symbols, codec.encode(pictures))
    monkeypatch.setattr(runtime_programs, "read_file", None)
    np.testing.assert_array_equal(programs(pictures, (2, 3)), symbols)


def test_a_program_that_this_jax_cannot_read_is_explained(copy, folder):
    data = (folder / "encode-cpu-0.stablehlo").read_bytes()
    for broken in (b"", b"\x00" * 100, data[:100], data[: len(data) // 2]):
        replace_file(copy, "encode-cpu-0.stablehlo", broken)
        with pytest.raises(ValueError, match=f"cannot be read by jax {jax.__version__}; it was made with"):
            use(copy)


def test_unknown_devices_are_named(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "abacus")
    with pytest.raises(ValueError, match="JAX computes on abacus here"):
        runtime_programs.current_platform()


def test_weights_are_what_the_library_for_their_format_reads():
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.ones((), np.float32)}
    read = read_arrays(safetensors.numpy.save(arrays))
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    halves = np.asarray([1.5, -2.0], jnp.bfloat16)
    read = read_arrays(safetensors.numpy.save({"h": halves}, metadata={"a": "b"}))
    assert read["h"].dtype == halves.dtype
    np.testing.assert_array_equal(read["h"], halves)
    empty = {"a": np.ones(1, np.float32), "b": np.zeros((0, 3), np.float32), "c": np.ones(2, np.float32)}
    assert {name: array.shape for name, array in read_arrays(safetensors.numpy.save(empty)).items()} == {
        name: array.shape for name, array in empty.items()
    }


def table_of(**spans: tuple[int, int]) -> bytes:
    """A table of float32 tensors, each with first and last byte."""
    return json.dumps(
        {
            name: {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}
            for name, (begin, end) in spans.items()
        }
    ).encode()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"[]", "no JSON object"),
        (b"{", "unreadable"),
        (b'{"a": 1}', "entry of tensor 'a' is unusable"),
        (b'{"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}', "entry of tensor 'a' is unusable"),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', "entry of tensor 'a' is unusable"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}', "entry of tensor 'a' is unusable"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "does not fit its 4 bytes"),
        (b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', "does not fit its 16 bytes"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}', "does not fit its -4 bytes"),
        (table_of(a=(0, 8), b=(0, 8), c=(0, 8)), "tensor 'b' begins at byte 0 instead of 8"),
        (table_of(a=(0, 8), b=(4, 8)), "tensor 'b' begins at byte 4 instead of 8"),
        (table_of(a=(0, 8), b=(4, 4)), "tensor 'b' begins at byte 4 instead of 8"),
        (table_of(a=(4, 8)), "tensor 'a' begins at byte 4 instead of 0"),
        (table_of(a=(0, 4)), "the tensors end at byte 4 of 8"),
        (table_of(), "the tensors end at byte 0 of 8"),
    ],
)
def test_damaged_weights_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        read_arrays(len(table).to_bytes(8, "little") + table + b"\x00" * 8)
    for data in (b"", b"\xff" * 8, (2**40).to_bytes(8, "little")):
        with pytest.raises(ValueError, match="the table of tensors claims"):
            read_arrays(data)
