"""The autoencoder's tensors under three sets of names."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from cod_jax.features.sd_vae import SDVAE, SDVAEConfig
from cod_jax.interop import load_sd_vae
from cod_jax.interop.frozen_networks import sd_vae
from cod_jax.models.functional import Functional, flatten_params
from tests.unit.interop.frozen_networks.comparison import assert_equal

TINY_VAE = SDVAEConfig(widths=(4, 8), encoder_blocks=1, num_groups=2)
PUBLISHED, DIFFUSERS, ORIGINAL = sd_vae.sd_vae_entries(
    Functional(lambda rngs: SDVAE(TINY_VAE, dtype="float32", rngs=rngs)).shapes, len(TINY_VAE.widths)
).values()


def vae_state_dict() -> dict[str, np.ndarray]:
    """Random weights of the tiny VAE under the published names."""
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(entry.shape).astype(np.float32) for name, entry in PUBLISHED.items()}


def test_a_vae_is_found_in_a_folder_or_named_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(sd_vae, "SDVAEConfig", lambda: TINY_VAE)
    weights = vae_state_dict()
    expected = sd_vae.sd_vae_params_from_state_dict(weights, TINY_VAE)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(weights, path)
    assert_equal(load_sd_vae(tmp_path), expected)
    assert_equal(load_sd_vae(path.rename(tmp_path / "my_vae.safetensors")), expected)


def test_kernels_are_turned_and_levels_of_the_original_release_counted_the_other_way_round():
    weights = vae_state_dict()
    params = flatten_params(sd_vae.sd_vae_params_from_state_dict(weights, TINY_VAE))
    kernel = weights["decoder.up_blocks.0.resnets.0.conv1.weight"]
    np.testing.assert_array_equal(params["decoder/levels/0/blocks/0/conv1/kernel"], kernel.transpose(2, 3, 1, 0))
    query = weights["encoder.mid_block.attentions.0.query.weight"]
    np.testing.assert_array_equal(params["encoder/middle/attention/q/kernel"], query.T)
    assert ORIGINAL["decoder.up.1.block.0.conv1.weight"].name == "decoder/levels/0/blocks/0/conv1/kernel"


@pytest.mark.parametrize("entries", [DIFFUSERS, ORIGINAL], ids=["diffusers", "original"])
def test_a_vae_under_other_names_is_the_same(entries):
    weights = vae_state_dict()
    by_parameter = {PUBLISHED[name].name: value for name, value in weights.items()}
    renamed = {name: by_parameter[entry.name].reshape(entry.shape) for name, entry in entries.items()}
    assert len(renamed.keys() - weights.keys()) == (16 if entries is DIFFUSERS else len(weights) - 12)
    training = {"loss.logvar": np.zeros((), np.float32), "model_ema.decay": np.zeros((), np.float32)}
    expected = sd_vae.sd_vae_params_from_state_dict(weights, TINY_VAE)
    assert_equal(sd_vae.sd_vae_params_from_state_dict(renamed | training, TINY_VAE), expected)


def test_weights_that_do_not_fit_are_refused_with_three_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(sd_vae, "SDVAEConfig", lambda: TINY_VAE)
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
