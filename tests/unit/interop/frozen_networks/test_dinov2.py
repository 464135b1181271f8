"""DINOv2's stacked blocks, and the checksum of its file."""

import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.interop import load_dinov2
from cod_jax.interop.frozen_networks import dinov2
from cod_jax.models.functional import flatten_params

TINY_DINOV2 = DINOv2Config(patch_size=2, width=8, num_blocks=3, num_heads=2, mlp_width=16, table_side=3)


def test_a_file_with_another_checksum_is_refused_unread(tmp_path):
    (tmp_path / "dinov2_vitb14_pretrain.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="SHA-256") as error:
        load_dinov2(tmp_path)
    assert hashlib.sha256(b"no weights").hexdigest() in str(error.value)
    assert "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73" in str(error.value)


def test_a_file_with_the_right_checksum_is_read(tmp_path, monkeypatch):
    path = tmp_path / "dinov2_vitb14_pretrain.pth"
    save_file({"cls_token": np.zeros((1, 1, 768), np.float32), "mask_token": np.zeros((1, 768), np.float32)}, path)
    official = dinov2.DINOV2_FILE._replace(sha256=(hashlib.sha256(path.read_bytes()).hexdigest(),))
    monkeypatch.setattr(dinov2, "DINOV2_FILE", official)
    with pytest.raises(ValueError, match=r"missing \(173\).*unexpected \(0\): none.*wrong shape \(0\)"):
        load_dinov2(tmp_path)


def test_stacked_blocks_are_filled_in_order():
    names = {"cls_token": (1, 1, 8), "pos_embed": (1, 10, 8), "patch_embed.proj.weight": (8, 3, 2, 2)}
    names |= {"patch_embed.proj.bias": (8,), "norm.weight": (8,), "norm.bias": (8,)}
    layers = {"norm1": (8,), "attn.qkv": (24, 8), "attn.proj": (8, 8), "norm2": (8,)}
    layers |= {"mlp.fc1": (16, 8), "mlp.fc2": (8, 16)}
    for layer in range(3):
        for name, shape in layers.items():
            names |= {f"blocks.{layer}.{name}.weight": shape, f"blocks.{layer}.{name}.bias": shape[:1]}
        names |= {f"blocks.{layer}.ls{number}.gamma": (8,) for number in (1, 2)}
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in names.items()}
    params = flatten_params(dinov2.dinov2_params_from_state_dict(weights, TINY_DINOV2))
    np.testing.assert_array_equal(params["blocks/block/mlp_in/kernel"][2], weights["blocks.2.mlp.fc1.weight"].T)
    np.testing.assert_array_equal(params["blocks/block/scale2"][1], weights["blocks.1.ls2.gamma"])
    patch = weights["patch_embed.proj.weight"][:, 1, 0, 1]
    np.testing.assert_array_equal(params["patch_embed/kernel"].reshape(2, 2, 3, 8)[0, 1, 1], patch)
