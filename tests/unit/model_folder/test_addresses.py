"""Model folders at addresses of remote storage."""

import argparse

import fsspec
import pytest

from cod_jax.codec import load
from cod_jax.commands.main import _fetch, main, parse
from cod_jax.commands.options import local_model, named_model
from cod_jax.errors import UserError
from cod_jax.model_folder import bundle
from cod_jax.model_folder.included import model_path
from cod_jax.model_folder.prior_file import PRIOR_FILE, save_prior
from cod_jax.models import build_model
from cod_jax.training.initial import _load_sources
from cod_jax.training.teacher import load_teacher_config
from tests.coding_fixtures import fitted
from tests.model_fixtures import numpy_params, save_tiny_model, tiny_model_config
from tests.storage_fixtures import bucket as bucket


def _save(address: str, seed: int = 0) -> str:
    config = tiny_model_config()
    return bundle.save_bundle(address, config, numpy_params(build_model(config).shapes, seed), training={}, force=True)


def test_a_model_is_the_same_at_an_address(bucket: str, tmp_path):
    save_tiny_model(f"{bucket}/models/tiny")
    save_tiny_model(tmp_path / "tiny")
    expected = bundle.load_bundle(tmp_path / "tiny").fingerprint
    assert load(f"{bucket}/models/tiny").engine.coder.fingerprint == expected
    assert named_model(f"{bucket}/models/tiny") == f"{bucket}/models/tiny"
    assert load_teacher_config(f"{bucket}/models/tiny") == tiny_model_config()
    assert _load_sources(f"{bucket}/models/tiny").keys() == {"raw", "ema"}


def test_commands_take_a_model_at_an_address(bucket: str, capsys):
    _save(f"{bucket}/m")
    assert main(["-m", f"{bucket}/none", "photo.jpg"], command="compress") == 2
    assert capsys.readouterr().err == "cod compress: error: memory://bucket/none does not exist\n"
    args = parse(["evaluate", "-m", f"{bucket}/m", "-m", "compact", "--images", ".", "--output", "out"])
    assert args.model[0] == f"{bucket}/m"
    _fetch(args)
    assert bundle.load_bundle(args.model[0]).fingerprint == bundle.load_bundle(model_path(f"{bucket}/m")).fingerprint


@pytest.mark.slow
def test_a_prior_at_an_address_stays_with_its_weights(bucket: str, tmp_path):
    address = f"{bucket}/m"
    _save(address)
    save_prior(tmp_path, fitted(16))
    fsspec.filesystem("memory").put_file(str(tmp_path / PRIOR_FILE), f"/bucket/m/{PRIOR_FILE}")
    before = load(address).engine.coder.fingerprint
    assert _save(address) == before
    with pytest.raises(UserError, match=rf"^{address} holds {PRIOR_FILE}, a prior that was fitted to other weights"):
        _save(address, seed=1)
    assert load(address).engine.coder.fingerprint == before


def test_a_model_that_is_to_be_changed_must_be_local(bucket: str):
    with pytest.raises(argparse.ArgumentTypeError, match="is an address, and only local paths work here"):
        local_model(f"{bucket}/m")
