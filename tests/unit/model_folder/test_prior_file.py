"""The prior in a model folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from cod_jax.codec import from_bundle
from cod_jax.coding import container
from cod_jax.coding.entropy import Prior, SymbolFormat
from cod_jax.commands.info import model_lines
from cod_jax.errors import UserError
from cod_jax.model_folder import prior_file
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.model_folder.describe import describe_model
from cod_jax.model_folder.description import read_fingerprints
from cod_jax.model_folder.search import find_model
from cod_jax.models import FactorizedConfig, build_model
from cod_jax.runtime.arrays import Tensors
from tests.coding_fixtures import channels, codebook, counts_only, fitted
from tests.model_fixtures import gradient_image, numpy_params, save_tiny_model, tiny_codec, tiny_model_config


def test_a_prior_comes_back_and_changes_the_fingerprint_of_the_folder(tmp_path: Path):
    save_tiny_model(tmp_path)
    without = load_bundle(tmp_path)
    assert without.prior is None
    assert read_fingerprints(tmp_path) == (without.fingerprint,) * 2 == without.symbol_coder().fingerprints
    prior_file.save_prior(tmp_path, fitted(16))
    bundle = load_bundle(tmp_path)
    assert bundle.prior is not None
    assert bundle.prior.fingerprint() == fitted(16).fingerprint()
    assert bundle.fingerprint == without.fingerprint
    assert read_fingerprints(tmp_path) == (from_bundle(bundle).fingerprint, without.fingerprint)
    assert from_bundle(bundle).fingerprint != without.fingerprint


def test_a_prior_may_have_counts_only(tmp_path: Path):
    prior_file.save_prior(tmp_path, counts_only(16))
    loaded = prior_file.load_prior(tmp_path, codebook(4))
    assert loaded is not None
    assert loaded.tables.keys() == {"counts"}
    assert prior_file.load_prior(tmp_path / "nothing", codebook(4)) is None


def test_a_damaged_prior_is_refused(tmp_path: Path):
    prior_file.save_prior(tmp_path, fitted(16))
    file = tmp_path / prior_file.PRIOR_FILE
    data = file.read_bytes()
    tables = dict(fitted(16).tables)
    floats = safetensors.numpy.save({**tables, "bias": np.zeros(tables["bias"].shape, np.float32)})
    for content in (b"", data[:100], data[:-1], b"\xff" * 8 + data[8:], floats):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"prior\.safetensors is damaged \(.*\); copy or make the folder again"):
            prior_file.load_prior(tmp_path, codebook(4))
    file.write_bytes(safetensors.numpy.save({**tables, "bias": tables["pair"]}))
    with pytest.raises(UserError, match=r"prior\.safetensors is damaged or of another model .* cod fit-prior --force"):
        prior_file.load_prior(tmp_path, codebook(4))
    file.write_bytes(data)
    with pytest.raises(UserError, match="not those of symbols of 8 bits"):
        prior_file.load_prior(tmp_path, codebook(8))
    with pytest.raises(
        UserError, match=r"damaged or of another model .*; copy it again, make the folder again, or fit"
    ):
        prior_file.load_prior(tmp_path, channels(5))
    with pytest.raises(UserError, match=r"prior\.safetensors is missing, which codes the symbols of its model"):
        prior_file.load_prior(tmp_path / "nothing", channels(5))


@pytest.mark.parametrize(
    ("symbols", "tables", "wrong"),
    [
        (codebook(4), {"counts": np.zeros(18, np.int32)}, "counts"),
        (codebook(10), {"counts": np.zeros(2**10, np.int32), "pair": np.zeros(1, np.int16)}, "pair"),
        (channels(5), {"offsets": np.zeros((1, 6), np.int32), "other": np.zeros(0, np.int8)}, "offsets, other"),
    ],
)
def test_tables_too_large_for_the_symbols_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch, symbols: SymbolFormat, tables: dict[str, np.ndarray], wrong: str
):
    prior_file.save_prior(tmp_path, Prior(tables))
    monkeypatch.setattr(Tensors, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UserError, match=f"of another model .the tables {wrong} are unknown, or not those of symbols"):
        prior_file.load_prior(tmp_path, symbols)


def test_a_sparse_prior_is_refused_unread(tmp_path: Path, monkeypatch):
    save_tiny_model(tmp_path)
    with (tmp_path / prior_file.PRIOR_FILE).open("wb") as file:
        file.truncate(3 * 2**30)
    monkeypatch.setattr(prior_file, "open_tensors", lambda _: pytest.fail("it was read"))
    for read in (read_fingerprints, load_bundle):
        with pytest.raises(UserError, match=r"prior\.safetensors is damaged .it is longer than 67108864 bytes"):
            read(tmp_path)
    monkeypatch.setattr(prior_file, "MAX_PRIOR_BYTES", 100)
    with pytest.raises(UserError, match="expected tables of at most 100 bytes to code the symbols, got"):
        prior_file.save_prior(tmp_path, fitted(16))


def test_a_prior_may_name_the_entropy_model_of_another_package(tmp_path: Path):
    prior = Prior({"t": np.arange(3, dtype=np.uint8)}, "no_such_package.models:Mine")
    prior_file.save_prior(tmp_path, prior)
    read = prior_file.read_prior(tmp_path)
    assert read is not None
    assert (read.kind, read.fingerprint()) == (prior.kind, prior.fingerprint())
    message = r"prior\.safetensors: the model needs no_such_package\.models:Mine; install no_such_package, import"
    with pytest.raises(UserError, match=message):
        prior_file.load_prior(tmp_path, codebook(4))
    prior_file.save_prior(tmp_path, Prior(prior.tables, "os.system"))
    with pytest.raises(UserError, match=r"is damaged \(its kind is 'os.system'\)"):
        prior_file.read_prior(tmp_path)


def test_the_prior_of_a_factorized_model_must_be_there_and_fit(tmp_path: Path):
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=2))
    save_bundle(tmp_path / "model", config, numpy_params(build_model(config).shapes), training={})
    prior = load_bundle(tmp_path / "model").prior
    assert prior is not None
    prior_file.save_prior(tmp_path / "model", Prior({name: table[:1] for name, table in prior.tables.items()}))
    with pytest.raises(UserError, match=r"expected tables of \(levels, channels\) \(2, 8\) for .*, got \(1, 8\)\)"):
        load_bundle(tmp_path / "model")
    (tmp_path / "model" / prior_file.PRIOR_FILE).unlink()
    with pytest.raises(UserError, match=r"prior\.safetensors is missing, which codes the symbols"):
        load_bundle(tmp_path / "model")
    assert load_bundle(tmp_path / "model", with_prior=False).prior is None


def test_a_model_is_found_by_what_files_hold_of_its_fingerprint(tmp_path: Path, monkeypatch):
    folder = tmp_path / "models" / "tiny"
    save_tiny_model(folder)
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "model.json").write_text("{")
    model = read_fingerprints(folder).folder[:8]
    monkeypatch.delenv("COD_JAX_MODELS", raising=False)
    assert find_model(model, "raw") is None
    monkeypatch.setenv("COD_JAX_MODELS", os.pathsep.join(("", str(tmp_path / "nothing"), str(tmp_path / "models"))))
    assert find_model(model, "raw") == folder
    assert find_model("ffffffff", "raw") is None
    monkeypatch.setenv("COD_JAX_MODELS", str(folder))
    assert find_model(model, "raw") == folder


def test_files_from_before_the_prior_was_fitted_find_its_folder(tmp_path: Path, monkeypatch):
    save_tiny_model(tmp_path)
    data = from_bundle(load_bundle(tmp_path)).compress(gradient_image(16, 16))
    file = container.read(data)
    prior_file.save_prior(tmp_path, fitted(16))
    monkeypatch.setenv("COD_JAX_MODELS", str(tmp_path))
    folder, weights = (fingerprint[:8] for fingerprint in read_fingerprints(tmp_path))
    assert (file.model, file.mode) == (weights, "raw")
    # Only what has no probabilities does not depend on the prior.
    found = {(name, mode): find_model(name, mode) for name in (folder, weights) for mode in container.MODES}
    assert {key for key, path in found.items() if path is None} == {
        (weights, mode) for mode in container.MODES if mode != "raw"
    }
    with pytest.raises(ValueError, match=f"fingerprint {weights}, and this one has 00000000; .*, which is {tmp_path}$"):
        tiny_codec().decompress(data)
    lines = dict(model_lines(tmp_path, describe_model(tmp_path)))
    assert (lines["fingerprint"][:8], lines["fingerprint of weights"][:8]) == (folder, weights)


def test_files_of_mode_raw_find_their_model_whatever_the_prior(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("COD_JAX_MODELS", str(tmp_path))
    save_tiny_model(tmp_path)
    prior_file.save_prior(tmp_path, fitted(16))
    symbols = np.random.default_rng(0).integers(0, 16, (8, 8, 1)).astype(np.int32)
    first = load_bundle(tmp_path).symbol_coder()
    data = first.encode(symbols, height=128, width=128)
    file = container.read(data)
    for change in (
        lambda: None,
        lambda: prior_file.save_prior(tmp_path, counts_only(16)),
        (tmp_path / prior_file.PRIOR_FILE).unlink,
    ):
        change()
        assert find_model(file.model, file.mode) == tmp_path
        coder = load_bundle(tmp_path).symbol_coder()
        picture = coder.decode(data, max_pixels=2**20)
        np.testing.assert_array_equal(picture.symbols, symbols)
    assert coder.fingerprint != first.fingerprint
