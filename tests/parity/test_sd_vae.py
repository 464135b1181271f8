"""sd-vae-ft-ema with synthetic weights against the published implementation, and the three ways to name its tensors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.sd_vae import LATENT_SCALE, SDVAE, Moments, SDVAEConfig
from cod_jax.interop.frozen_networks.sd_vae import sd_vae_entries
from cod_jax.models.functional import Functional
from tests.parity.cases import FrozenCase, frozen_cases, frozen_layout, sd_vae_aliases
from tests.parity.tolerances import NETWORK

VAE = Functional(lambda rngs: SDVAE(SDVAEConfig(), dtype="float32", rngs=rngs))
CASES = frozen_cases("v1", slow=("v0",), larger=("v0", "v1"))


@partial(jax.jit, static_argnums=0)
def run(method: str, params, x):
    return getattr(VAE.bind(params), method)(x)


@jax.jit
def decode_gradient(params, latent):
    return jax.grad(lambda latent: jnp.mean(VAE.bind(params).decode(latent) ** 2))(latent)


@jax.jit
def stages(params, image, latent):
    """Return outputs inside encoder and decoder, in the order of the stored statistics."""
    network = VAE.bind(params)
    encoder, decoder = network.encoder, network.decoder
    encoded = [encoder.conv_in(image)]
    for level in encoder.levels:
        encoded.append(level(encoded[-1]))
    encoded.append(encoder.middle(encoded[-1]))
    encoded.append(encoder.norm_out(encoded[-1]))
    decoded = [network.from_latent(latent)]
    for layer in (decoder.conv_in, decoder.middle, *decoder.levels, decoder.norm_out):
        decoded.append(layer(decoded[-1]))
    return encoded, decoded, network.to_moments(network.encoder(image))


@pytest.mark.parametrize(("name", "is_larger"), CASES)
def test_encoder(sd_vae_params, name, is_larger):
    case = FrozenCase("sdvae", is_larger=is_larger)
    moments = run("encode_moments", sd_vae_params, jnp.asarray(case.image(name)))
    for part in ("mean", "logvar", "std"):
        assert case.error(f"{name}_{part}", getattr(moments, part)[0]) <= NETWORK, part
    assert case.error(f"{name}_sample", moments.sample(jnp.asarray(case.arrays[f"{name}_noise"])[None])[0]) <= NETWORK
    assert case.error(f"{name}_cod_latent", moments.mean[0] * LATENT_SCALE) <= NETWORK


@pytest.mark.parametrize(("name", "is_larger"), CASES)
def test_decoder(sd_vae_params, name, is_larger):
    case = FrozenCase("sdvae", is_larger=is_larger)
    latents = [case.arrays[f"{name}_{part}"] for part in ("mean", "zrand")]
    latents.append(case.arrays[f"{name}_cod_latent"] / np.float32(LATENT_SCALE))
    images = run("decode", sd_vae_params, jnp.asarray(np.stack(latents)))
    for part, image in zip(("dec_mode", "dec_rand", "cod_dec"), images, strict=True):
        assert case.error(f"{name}_{part}", image) <= NETWORK, part


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_larger"), CASES)
def test_stages(sd_vae_params, name, is_larger):
    case = FrozenCase("sdvae", is_larger=is_larger)
    mean = jnp.asarray(case.arrays[f"{name}_mean"])[None]
    encoded, decoded, moments = stages(sd_vae_params, jnp.asarray(case.image(name)), mean)
    for part, outputs in (("enc_stats", encoded), ("dec_stats_mode", decoded)):
        statistics = [[x.mean(), x.std()] for x in (np.asarray(output, np.float64) for output in outputs)]
        assert case.error(f"{name}_{part}", statistics) <= NETWORK, part
    assert case.error(f"{name}_moments", moments[0]) <= NETWORK


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_larger"), CASES)
def test_gradient_of_the_decoder(sd_vae_params, name, is_larger):
    case = FrozenCase("sdvae", is_larger=is_larger)
    gradient = decode_gradient(sd_vae_params, jnp.asarray(case.arrays[f"{name}_zrand"])[None])
    assert case.error(f"{name}_dec_rand_dz", gradient[0]) <= NETWORK


def test_logvar_out_of_range_is_clipped():
    case = FrozenCase("sdvae")
    moments = Moments.from_channels(jnp.asarray(case.arrays["clamp_moments"])[None])
    np.testing.assert_array_equal(moments.mean[0], case.arrays["clamp_mean"])
    np.testing.assert_array_equal(moments.logvar[0], case.arrays["clamp_logvar"])
    assert case.error("clamp_std", moments.std[0]) <= NETWORK


def test_three_ways_to_name_the_same_tensors():
    published, diffusers, original = sd_vae_entries(VAE.shapes, len(SDVAEConfig().widths)).values()
    aliases = sd_vae_aliases()
    for name, name_in_diffusers, name_in_original, shape in aliases:
        ours = published[name].name
        assert diffusers[name_in_diffusers].name == original[name_in_original].name == ours
        assert list(original[name_in_original].shape) == shape, name_in_original
    assert len(published) == len(diffusers) == len(original) == len(aliases)
    assert {name: list(entry.shape) for name, entry in published.items()} == dict(frozen_layout("sd_vae_ft_ema"))
