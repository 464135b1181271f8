"""Compiled models do what the models do, without their code."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cod_jax
from cod_jax import runtime
from cod_jax.codec import Codec, from_bundle, inspection
from cod_jax.coding.entropy import Prior
from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import Bundle, load_bundle
from cod_jax.models import build_model
from cod_jax.nn import attention
from cod_jax.runtime.folder import Dtype
from cod_jax.specialize import programs
from cod_jax.specialize.folder import write_compiled
from tests.model_fixtures import gradient_image, numpy_params, tiny_bundle, tiny_codec, tiny_pixel_config
from tests.unit.codec.pixels import levels_apart

REPOSITORY = Path(__file__).resolve().parents[3]


def compiled(folder: Path, dtype: Dtype = "float32", **codec_fields: Any) -> Codec:
    """Compile a tiny model and load it."""
    write_compiled(folder, tiny_bundle(**codec_fields), platforms=["cpu"], dtype=dtype)
    return cod_jax.load(folder)


@pytest.fixture(scope="module")
def windowed_codec(tmp_path_factory) -> Codec:
    return compiled(tmp_path_factory.mktemp("windowed") / "c", attention="window_published")


@pytest.mark.slow
@pytest.mark.parametrize("cells", [(1, 33), (33, 1)])
def test_windows_are_cut_as_in_the_model(windowed_codec: Codec, cells: tuple[int, int]):
    # One side beyond a window of 32 symbols, so that the other is padded to it.
    picture = gradient_image(16 * cells[0], 16 * cells[1])
    plain = tiny_codec(attention="window_published")
    symbols = plain.encode(picture)
    np.testing.assert_array_equal(windowed_codec.encode(picture), symbols)
    decoded = windowed_codec.decode(symbols)
    assert levels_apart(decoded, plain.decode(symbols)) <= 1 < levels_apart(decoded, tiny_codec().decode(symbols))


@pytest.mark.slow
def test_queries_are_cut_as_in_the_model(tmp_path: Path, monkeypatch):
    # 9 symbols are more than twice the chunk, so that the program for many of them runs.
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    for module in (attention, programs):
        monkeypatch.setattr(module, "MAX_WHOLE_QUERIES", 8)
    codec = compiled(tmp_path / "c")
    monkeypatch.undo()
    picture = gradient_image(48, 48)
    symbols = tiny_codec().encode(picture)
    np.testing.assert_array_equal(codec.encode(picture), symbols)
    assert levels_apart(codec.decode(symbols), tiny_codec().decode(symbols)) <= 1


@pytest.mark.slow
def test_symbols_finer_than_the_patch_grid(tmp_path: Path):
    codec, plain = compiled(tmp_path / "c", pitch=8), tiny_codec(pitch=8)
    picture = gradient_image(24, 15)
    symbols = codec.encode(picture)
    np.testing.assert_array_equal(symbols, plain.encode(picture))
    assert symbols.shape == (3, 2, 1)
    assert levels_apart(codec.decode(symbols), plain.decode(symbols)) <= 1


@pytest.mark.slow
def test_bfloat16_stays_close(tmp_path: Path, compiled_codec: Codec):
    rounded = compiled(tmp_path / "c", dtype="bfloat16")
    files = {path.name: path.stat().st_size for path in (tmp_path / "c").iterdir()}
    assert files["decode.safetensors"] < 0.6 * 4 * 236_539
    symbols = np.random.default_rng(0).integers(0, 16, (2, 3, 1)).astype(np.int32)
    difference = rounded.decode(symbols).astype(float) - compiled_codec.decode(symbols)
    # A random network; 40 dB are a root mean square of 2.5 levels.
    assert 10 * np.log10(255**2 / np.mean(difference**2)) > 40
    assert rounded.encode(gradient_image(32, 48)).shape == (2, 3, 1)


@pytest.mark.slow
def test_the_prior_comes_along(tmp_path: Path):
    counts = np.full(16, 2048, np.int32)
    counts[3] += 2**16 - counts.sum()
    bundle = dataclasses.replace(tiny_bundle(), prior=Prior({"counts": counts}))
    write_compiled(tmp_path / "c", bundle, platforms=["cpu"], dtype="float32")
    codec, plain = cod_jax.load(tmp_path / "c"), from_bundle(bundle)
    assert codec.fingerprint == plain.fingerprint != bundle.fingerprint
    picture = gradient_image(32, 48)
    data = codec.compress(picture)
    assert data == plain.compress(picture)
    assert codec.decompress(data).shape == (32, 48, 3)
    file = tmp_path / "c" / "prior.safetensors"
    file.write_bytes(b"\x00" * file.stat().st_size)
    with pytest.raises(UserError, match=r"prior.safetensors is damaged"):
        cod_jax.load(tmp_path / "c")


@pytest.fixture(scope="module")
def pixel_codecs(tmp_path_factory) -> tuple[Codec, Codec]:
    """A one-step CoD, whose transformer cuts more than four queries in chunks, plain and compiled."""
    config = tiny_pixel_config()
    bundle = Bundle(config, numpy_params(build_model(config).shapes), "2" * 64, "float32", {})
    folder = tmp_path_factory.mktemp("pixel") / "c"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERY_CHUNK", 2)
        for module in (attention, programs):
            patch.setattr(module, "MAX_WHOLE_QUERIES", 4)
        write_compiled(folder, bundle, platforms=["cpu"], dtype="float32")
    return from_bundle(bundle), cod_jax.load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16, 16), (40, 45)])
def test_one_step_cod_is_that_of_the_model(pixel_codecs: tuple[Codec, Codec], size: tuple[int, int]):
    plain, codec = pixel_codecs
    picture = gradient_image(*size)
    data = codec.compress(picture)
    assert data == plain.compress(picture)
    assert levels_apart(codec.decompress(data), plain.decompress(data, steps=1)) <= 1


def test_a_model_without_its_tables_is_not_used(factorized_folder: Path, tmp_path: Path):
    bundle = load_bundle(factorized_folder / "model", with_prior=False)
    prior = load_bundle(factorized_folder / "model").prior
    assert prior is not None
    fewer = Prior({name: table[:1] for name, table in prior.tables.items()})
    makers: tuple[Callable[[Bundle], Any], ...] = (
        from_bundle,
        lambda bundle: write_compiled(tmp_path / "c", bundle, platforms=["cpu"], dtype="float32"),
    )
    for make in makers:
        with pytest.raises(UserError, match=r"no tables code the symbols .* of 2 levels and 8 channels; load"):
            make(bundle)
        with pytest.raises(UserError, match=r"expected tables of \(levels, channels\) \(2, 8\) .*, got \(1, 8\)"):
            make(dataclasses.replace(bundle, prior=fewer))
    assert not (tmp_path / "c").exists()


def test_it_decodes_in_one_step(compiled_codec: Codec):
    assert compiled_codec.decoding.num_steps == 1
    with pytest.raises(UserError, match="a compiled model has no config; load the model folder that it was made from"):
        _ = compiled_codec.config
    data = compiled_codec.compress(gradient_image(16, 16))
    with pytest.raises(UserError, match="compiled models decode in one step, got 25 steps; leave them out, or use"):
        compiled_codec.decompress(data, steps=25)
    with pytest.raises(UserError, match="compiled models decode in one step, got 2 steps"):
        compiled_codec.decode(np.zeros((1, 1, 1), np.int32), steps=2)


def test_it_shows_its_bits_only(compiled_codec: Codec):
    image_uint8 = gradient_image(16, 16)
    data = compiled_codec.compress(image_uint8)
    np.testing.assert_array_equal(inspection.bit_map(compiled_codec, data), inspection.bit_map(tiny_codec(), data))
    np.testing.assert_array_equal(inspection.symbols(compiled_codec, data), compiled_codec.encode(image_uint8))
    for show in (inspection.condition, inspection.sampler_states):
        with pytest.raises(UserError, match="does not show what is inside it; load the model folder"):
            show(compiled_codec, data)
    with pytest.raises(UserError, match="does not show what is inside it; load the model folder"):
        inspection.latents(compiled_codec, image_uint8)


def test_it_has_two_names(compiled_folder: Path):
    assert repr(runtime.load(compiled_folder)) == repr(cod_jax.load(compiled_folder))


def test_no_model_code_and_no_flax_is_imported(compiled_folder: Path):
    script = """
import sys
import numpy as np
import cod_jax

codec = cod_jax.load(sys.argv[1])
image_uint8 = np.zeros((16, 16, 3), np.uint8)
assert codec.decompress(codec.compress(image_uint8)).shape == image_uint8.shape
try:
    codec.decompress(codec.compress(image_uint8).replace(b"\\0\\0\\0\\0", b"\\1\\1\\1\\1", 1))
except ValueError:
    pass
packages = {name.partition(".")[0] for name in sys.modules}
own = {name.split(".")[1] for name in sys.modules if name.startswith("cod_jax.")}
unwanted = {"flax", "optax", "orbax", "grain", "jaxtyping", "beartype", "ml_collections", "clu", "tensorflow", "torch",
            "tqdm", "absl"}
print(sorted(packages & unwanted), sorted(own & {"models", "nn", "specialize", "features", "training"}))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(compiled_folder)],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert (result.stdout, result.returncode) == ("[] []\n", 0), result.stderr
