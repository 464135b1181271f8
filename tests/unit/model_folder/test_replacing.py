"""Model folders that take the place of others, and what files depend on."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.model_folder import bundle
from cod_jax.model_folder.prior_file import PRIOR_FILE, save_prior
from cod_jax.models import FactorizedConfig, build_model
from tests.coding_fixtures import fitted
from tests.model_fixtures import numpy_params, save_tiny_model, tiny_bundle, tiny_model_config


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with a prior that was fitted to it."""
    save_tiny_model(tmp_path / "model")
    save_prior(tmp_path / "model", fitted(16))
    return tmp_path / "model"


def save(path: Path, seed: int = 0) -> str:
    config = tiny_model_config()
    return bundle.save_bundle(path, config, numpy_params(build_model(config).shapes, seed), training={}, force=True)


def test_the_prior_stays_with_its_weights(model: Path):
    before, content = bundle.load_bundle(model), (model / PRIOR_FILE).read_bytes()
    assert save(model) == before.symbol_coder().fingerprint
    assert (model / PRIOR_FILE).read_bytes() == content


def test_a_prior_fitted_to_other_weights_is_not_deleted(model: Path):
    content = {path.name: path.read_bytes() for path in model.iterdir()}
    with pytest.raises(UserError, match=rf"holds {PRIOR_FILE}, a prior that was fitted to other weights .* move that"):
        save(model, seed=1)
    (model / "model.json").write_text("damaged")
    with pytest.raises(UserError, match="holds"):
        save(model)
    assert {path.name for path in model.iterdir()} == set(content)
    assert (model / PRIOR_FILE).read_bytes() == content[PRIOR_FILE]


def test_a_prior_that_cannot_be_read_is_not_deleted(model: Path):
    damaged = (model / PRIOR_FILE).read_bytes()[:-1]
    (model / PRIOR_FILE).write_bytes(damaged)
    with pytest.raises(UserError, match=rf"holds {PRIOR_FILE}, a prior that cannot be read and .* move that"):
        save(model)
    assert (model / PRIOR_FILE).read_bytes() == damaged


def test_a_model_that_is_replaced_is_named(model: Path):
    (model / PRIOR_FILE).unlink()
    old = bundle.load_bundle(model).fingerprint
    with pytest.warns(UserWarning, match=f"held the model of fingerprint {old[:16]}, which its files need; it was"):
        save(model, seed=1)


def test_tables_that_go_with_their_weights_are_replaced_with_them(tmp_path: Path):
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=2))
    params = numpy_params(build_model(config).shapes)
    params["codec"]["bottleneck"]["log_gains"][:] = np.log([[1.0], [4.0]])
    bundle.save_bundle(tmp_path / "model", config, params, training={})
    with pytest.warns(UserWarning, match="it was replaced"):
        save(tmp_path / "model")
    assert not (tmp_path / "model" / PRIOR_FILE).exists()


def test_a_description_is_read_without_the_weights(model: Path):
    whole = bundle.load_bundle(model)
    outline = bundle.load_bundle(model, with_weights=False)
    assert outline.symbol_coder().fingerprint == whole.symbol_coder().fingerprint
    weights = model / bundle.WEIGHTS_FILE
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert bundle.load_bundle(model, with_weights=False).fingerprint == whole.fingerprint
    with pytest.raises(UserError, match="not those of its fingerprint"):
        bundle.load_bundle(model)
    shutil.copy(model / PRIOR_FILE, weights)
    with pytest.raises(UserError, match="damaged or of another model"):
        bundle.load_bundle(model, with_weights=False)
    assert tiny_bundle().config == outline.config


def test_files_that_are_no_part_of_a_model_are_not_deleted(model: Path):
    (model / "note.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds note\.txt, which is not part of a model; move it away, or choose"):
        save(model)
    assert (model / "note.txt").read_text() == "mine"
