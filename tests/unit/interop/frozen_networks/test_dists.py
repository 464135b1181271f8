"""DISTS, which comes in two files."""

import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from cod_jax.features.trunk import Stage
from cod_jax.interop import load_dists
from cod_jax.interop.frozen_networks import dists
from cod_jax.interop.frozen_networks.dists import DISTS_FILES, dists_params_from_state_dict
from cod_jax.interop.frozen_networks.files import official_sha256
from cod_jax.models.functional import flatten_params

TINY_STAGES = (Stage((4,)), Stage((6, 5), pool=2))
SHAPES = {
    "features.0.weight": (4, 3, 3, 3),
    "features.0.bias": (4,),
    "features.3.weight": (6, 4, 3, 3),
    "features.3.bias": (6,),
    "features.5.weight": (5, 6, 3, 3),
    "features.5.bias": (5,),
    "alpha": (1, 12, 1, 1),
    "beta": (1, 12, 1, 1),
    "classifier.0.weight": (7, 5),
}


def test_dists_takes_its_trunk_and_a_weight_for_each_channel():
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    params = flatten_params(dists_params_from_state_dict(weights, TINY_STAGES))
    assert len(params) == len(weights) - 1
    np.testing.assert_array_equal(params["convs/1/kernel"], weights["features.3.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["alpha"], weights["alpha"].ravel())
    np.testing.assert_array_equal(params["beta"], weights["beta"].ravel())
    with pytest.raises(ValueError, match=r"missing \(1\): beta"):
        dists_params_from_state_dict({name: weights[name] for name in weights if name != "beta"}, TINY_STAGES)


def test_both_files_are_needed_and_must_be_the_official_ones(tmp_path, monkeypatch):
    digests = []
    for official in DISTS_FILES:
        save_file({"alpha": np.zeros((1, len(digests)), np.float32)}, tmp_path / official.names[0])
        digests.append(hashlib.sha256((tmp_path / official.names[0]).read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=r"vgg16-397923af\.pth: expected the SHA-256 of the official file"):
        official_sha256(DISTS_FILES, tmp_path)
    ours = tuple(one._replace(sha256=(digest,)) for one, digest in zip(DISTS_FILES, digests, strict=True))
    assert official_sha256(ours, tmp_path) == tuple(digests)
    monkeypatch.setattr(dists, "DISTS_FILES", ours)
    with pytest.raises(ValueError, match=r"weights\.pt: is not DISTS: parameters do not fit"):
        load_dists(tmp_path)
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(FileNotFoundError, match=f"DISTS needs weights.pt, and there is none in {tmp_path}"):
        official_sha256(ours, tmp_path)
