import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.features.lpips import Stage
from cod_jax.features.sd_vae import SDVAE, SDVAEConfig
from cod_jax.interop import load_dinov2, load_lpips, load_sd_vae, pretrained
from cod_jax.interop.frozen import load_frozen
from cod_jax.models.functional import Functional, flatten_params

TINY_VAE = SDVAEConfig(widths=(4, 8), encoder_blocks=1, num_groups=2)
TINY_DINOV2 = DINOv2Config(patch_size=2, width=8, num_blocks=3, num_heads=2, mlp_width=16, table_side=3)


PUBLISHED, DIFFUSERS, ORIGINAL = pretrained.sd_vae_slots(
    Functional(lambda rngs: SDVAE(TINY_VAE, dtype="float32", rngs=rngs)).shapes, len(TINY_VAE.widths)
)


def vae_state_dict() -> dict[str, np.ndarray]:
    """Random weights of the tiny VAE under the published names."""
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(slot.shape).astype(np.float32) for name, slot in PUBLISHED.items()}


def assert_equal(actual: Any, expected: Any) -> None:
    actual, expected = flatten_params(actual), flatten_params(expected)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_a_vae_is_found_in_a_folder_or_named_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "SDVAEConfig", lambda: TINY_VAE)
    weights = vae_state_dict()
    expected = pretrained.sd_vae_params_from_state_dict(weights, TINY_VAE)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(weights, path)
    assert_equal(load_sd_vae(tmp_path), expected)
    assert_equal(load_sd_vae(path.rename(tmp_path / "my_vae.safetensors")), expected)


def test_kernels_are_turned_and_levels_of_the_original_release_counted_the_other_way_round():
    weights = vae_state_dict()
    params = flatten_params(pretrained.sd_vae_params_from_state_dict(weights, TINY_VAE))
    kernel = weights["decoder.up_blocks.0.resnets.0.conv1.weight"]
    np.testing.assert_array_equal(params["decoder/levels/0/blocks/0/conv1/kernel"], kernel.transpose(2, 3, 1, 0))
    query = weights["encoder.mid_block.attentions.0.query.weight"]
    np.testing.assert_array_equal(params["encoder/middle/attention/q/kernel"], query.T)
    assert ORIGINAL["decoder.up.1.block.0.conv1.weight"].name == "decoder/levels/0/blocks/0/conv1/kernel"


@pytest.mark.parametrize("slots", [DIFFUSERS, ORIGINAL], ids=["diffusers", "original"])
def test_a_vae_under_other_names_is_the_same(slots):
    weights = vae_state_dict()
    by_parameter = {PUBLISHED[name].name: value for name, value in weights.items()}
    renamed = {name: by_parameter[slot.name].reshape(slot.shape) for name, slot in slots.items()}
    assert len(renamed.keys() - weights.keys()) == (16 if slots is DIFFUSERS else len(weights) - 12)
    training = {"loss.logvar": np.zeros((), np.float32), "model_ema.decay": np.zeros((), np.float32)}
    expected = pretrained.sd_vae_params_from_state_dict(weights, TINY_VAE)
    assert_equal(pretrained.sd_vae_params_from_state_dict(renamed | training, TINY_VAE), expected)


@pytest.mark.parametrize(
    ("load", "name", "url"),
    [
        (load_dinov2, "dinov2_vitb14_pretrain.pth", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/"),
        (load_sd_vae, "diffusion_pytorch_model.safetensors", "https://huggingface.co/stabilityai/sd-vae-ft-ema"),
        (load_lpips, "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
        (partial(load_lpips, trunk="alex"), "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet"),
    ],
)
def test_a_missing_file_is_one_message_with_name_source_and_place(tmp_path, load, name, url):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path, otherwise="set the weight of this loss to 0")
    message = str(error.value)
    assert name in message
    assert url in message
    assert f"there is none in {tmp_path}" in message
    assert message.endswith("put it there, or set the weight of this loss to 0")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load(tmp_path / "nowhere")


def test_a_file_with_another_checksum_is_refused_unread(tmp_path):
    (tmp_path / "dinov2_vitb14_pretrain.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="SHA-256") as error:
        load_dinov2(tmp_path)
    assert hashlib.sha256(b"no weights").hexdigest() in str(error.value)
    assert "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73" in str(error.value)


def test_a_file_with_the_right_checksum_is_read(tmp_path, monkeypatch):
    path = tmp_path / "dinov2_vitb14_pretrain.pth"
    save_file({"cls_token": np.zeros((1, 1, 768), np.float32), "mask_token": np.zeros((1, 768), np.float32)}, path)
    official = pretrained._DINOV2._replace(sha256=(hashlib.sha256(path.read_bytes()).hexdigest(),))
    monkeypatch.setattr(pretrained, "_DINOV2", official)
    with pytest.raises(ValueError, match=r"missing \(173\).*unexpected \(0\): none.*wrong shape \(0\)"):
        load_dinov2(tmp_path)


def test_weights_that_do_not_fit_are_refused_with_three_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "SDVAEConfig", lambda: TINY_VAE)
    weights = vae_state_dict()
    del weights["quant_conv.bias"]
    weights["quant_conv.gain"] = np.zeros(1, np.float32)
    weights["decoder.conv_in.bias"] = np.zeros(5, np.float32)
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="is not the VAE sd-vae-ft-ema") as error:
        load_sd_vae(tmp_path)
    message = str(error.value)
    assert "missing (1): quant_conv.bias" in message
    assert "unexpected (1): quant_conv.gain" in message
    assert "wrong shape (1): decoder.conv_in.bias (5,) instead of (8,)" in message


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
    params = flatten_params(pretrained.dinov2_params_from_state_dict(weights, TINY_DINOV2))
    np.testing.assert_array_equal(params["blocks/block/mlp_in/kernel"][2], weights["blocks.2.mlp.fc1.weight"].T)
    np.testing.assert_array_equal(params["blocks/block/scale2"][1], weights["blocks.1.ls2.gamma"])
    patch = weights["patch_embed.proj.weight"][:, 1, 0, 1]
    np.testing.assert_array_equal(params["patch_embed/kernel"].reshape(2, 2, 3, 8)[0, 1, 1], patch)


# --- LPIPS, which comes in two files

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
    for official, shapes in zip(pretrained._LPIPS["alex"], (TRUNK, LINEAR), strict=True):
        arrays = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        path = folder / official.names[-1]
        save_file(arrays, path)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        officials.append(official._replace(sha256=("0" * 64, checksum[: 8 if shapes is TRUNK else 64])))
        weights |= arrays
    monkeypatch.setitem(pretrained._LPIPS, "alex", tuple(officials))
    monkeypatch.setitem(pretrained._LPIPS_STAGES, "alex", TINY_STAGES)
    return weights


def test_lpips_takes_its_trunk_without_the_classifier_and_its_linear_layers(tmp_path, monkeypatch):
    weights = save_lpips(tmp_path, monkeypatch)
    params = flatten_params(load_lpips(tmp_path, "alex"))
    assert len(params) == len(weights) - 1
    np.testing.assert_array_equal(params["convs/1/kernel"], weights["features.3.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["convs/2/bias"], weights["features.5.bias"])
    np.testing.assert_array_equal(params["weights/1"], weights["lin1.model.1.weight"][0, :, 0, 0])
    assert_equal(load_frozen(["lpips_alex"], str(tmp_path))["lpips_alex"], load_lpips(tmp_path, "alex"))


def test_lpips_needs_both_files_and_says_which_is_wrong(tmp_path, monkeypatch):
    save_lpips(tmp_path, monkeypatch)
    trunk, linear = (tmp_path / official.names[-1] for official in pretrained._LPIPS["alex"])
    save_file({"lin0.model.1.weight": np.zeros((1, 3, 1, 1), np.float32)}, linear)
    with pytest.raises(ValueError, match=r"alex\.pth: its SHA-256 is"):
        load_lpips(tmp_path, "alex")
    with monkeypatch.context() as patch:
        patch.setitem(pretrained._LPIPS, "alex", tuple(o._replace(sha256=()) for o in pretrained._LPIPS["alex"]))
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
    with pytest.raises(FileNotFoundError, match=r"'lpips_vgg' is needed and frozen\.weights names no folder"):
        load_frozen(["lpips_vgg"], "")
