"""LPIPS, which comes in two files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cod_jax.errors import UserError
from cod_jax.features.trunk import Stage
from cod_jax.interop import load_lpips
from cod_jax.interop.frozen_networks import load_frozen, lpips
from cod_jax.models.functional import flatten_params
from tests.storage_fixtures import bucket as bucket
from tests.storage_fixtures import put_folder
from tests.unit.interop.frozen_networks.comparison import assert_equal

TINY_STAGES = (Stage((4,), kernel_size=5), Stage((6, 5), pool=3))
TRUNK = {
    "features.0.weight": (4, 3, 5, 5),
    "features.0.bias": (4,),
    "features.3.weight": (6, 4, 3, 3),  # 1 is an activation, 2 the pooling
    "features.3.bias": (6,),
    "features.5.weight": (5, 6, 3, 3),
    "features.5.bias": (5,),
    "classifier.0.weight": (7, 5),
}
LINEAR = {"lin0.model.1.weight": (1, 4, 1, 1), "lin1.model.1.weight": (1, 5, 1, 1)}


def save_lpips(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Write both files for a tiny trunk, and make theirs the official checksums, of the trunk's only eight digits."""
    generator = np.random.default_rng(0)
    weights, officials = {}, []
    for official, shapes in zip(lpips.LPIPS_FILES["alex"], (TRUNK, LINEAR), strict=True):
        arrays = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        path = folder / official.names[-1]
        save_file(arrays, path)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        officials.append(official._replace(sha256=("0" * 64, checksum[: 8 if shapes is TRUNK else 64])))
        weights |= arrays
    monkeypatch.setitem(lpips.LPIPS_FILES, "alex", tuple(officials))
    monkeypatch.setitem(lpips.STAGES, "alex", TINY_STAGES)
    return weights


def test_lpips_takes_its_trunk_without_the_classifier_and_its_linear_layers(tmp_path, monkeypatch):
    weights = save_lpips(tmp_path, monkeypatch)
    params = flatten_params(load_lpips(tmp_path, "alex"))
    assert len(params) == len(weights) - 1
    np.testing.assert_array_equal(params["convs/1/kernel"], weights["features.3.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["convs/2/bias"], weights["features.5.bias"])
    np.testing.assert_array_equal(params["weights/1"], weights["lin1.model.1.weight"][0, :, 0, 0])
    assert_equal(load_frozen(["lpips_alex"], str(tmp_path))["lpips_alex"], load_lpips(tmp_path, "alex"))


def test_weights_may_be_in_remote_storage(tmp_path, monkeypatch, bucket):
    (tmp_path / "weights").mkdir()
    save_lpips(tmp_path / "weights", monkeypatch)
    put_folder(tmp_path / "weights", f"{bucket}/weights")
    loaded = load_frozen(["lpips_alex"], f"{bucket}/weights")
    assert_equal(loaded["lpips_alex"], load_lpips(tmp_path / "weights", "alex"))
    with pytest.raises(UserError, match="memory://bucket/other does not exist"):
        load_frozen(["lpips_alex"], f"{bucket}/other")


def test_lpips_needs_both_files_and_says_which_is_wrong(tmp_path, monkeypatch):
    save_lpips(tmp_path, monkeypatch)
    trunk, linear = (tmp_path / official.names[-1] for official in lpips.LPIPS_FILES["alex"])
    save_file({"lin0.model.1.weight": np.zeros((1, 3, 1, 1), np.float32)}, linear)
    with pytest.raises(ValueError, match=r"alex\.pth: expected the SHA-256"):
        load_lpips(tmp_path, "alex")
    with monkeypatch.context() as patch:
        patch.setitem(lpips.LPIPS_FILES, "alex", tuple(o._replace(sha256=()) for o in lpips.LPIPS_FILES["alex"]))
        with pytest.raises(ValueError, match=r"alex\.pth: is not LPIPS with AlexNet") as error:
            load_lpips(tmp_path, "alex")
    assert "missing (1): lin1.model.1.weight" in str(error.value)
    assert "wrong shape (1): lin0.model.1.weight (1, 3, 1, 1) instead of (1, 4, 1, 1)" in str(error.value)
    linear.unlink()
    with pytest.raises(FileNotFoundError, match=r"LPIPS with AlexNet needs alex\.pth"):
        load_frozen(["lpips_alex"], str(tmp_path))
    trunk.unlink()
    with pytest.raises(FileNotFoundError, match=r"set objective\.reconstruction\.lpips_alex_weight to 0 to do without"):
        load_frozen(["lpips_alex"], str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match=r".lpips_vgg., .* no folder.* set --config\.frozen\.weights=FOLDER, or",
    ):
        load_frozen(["lpips_vgg"], "")
