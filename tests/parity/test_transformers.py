"""PixNerDiT, DDT and the transformer one-step decoder against the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.interop import load_reference
from cod_jax.models import ComputeConfig, build_model
from tests.parity.cases import Case, assert_close, cases

# `test_objective` runs a small DDT among the quick tests.
FAST = ("pixnerdit_small_up2x_64x64", "one_step_cod_small_64x48")
XL_RMS, XL_MAX = 5e-5, 5e-4


def noisy_inputs(case: Case):
    """Timesteps [T, B] and x_t of each."""
    image = case.nhwc("latent_f16") if case.meta["class"] == "DDT" else (case.image01() - 0.5) / 0.5
    noise = case.nhwc("noise_f16")
    for timestep in case.arrays["t"]:
        t = np.full(image.shape[0], timestep, np.float32)
        yield t, t[:, None, None, None] * image + (1 - t[:, None, None, None]) * noise


@pytest.mark.parametrize(("folder", "name"), cases("pixnerdit_*", "ddt_*", "xl_*", fast=FAST))
def test_denoiser_matches_the_published_one(folder, name):
    case = Case(name, folder)
    limits = (XL_RMS, XL_MAX) if name.startswith("xl_") else ()
    model = load_reference(case.meta["class"], case.config, case.weights())
    z_q, indices = model.codec.quantize(model.codec.encode(case.image01()))
    np.testing.assert_array_equal(indices, case.arrays["indices"])
    condition = model.codec.decode(z_q)
    # Of the largest networks only the first channels are stored.
    stored = case.stored_part("cond", condition)[:, : case.arrays["cond"].shape[1]]
    assert_close(stored, case.arrays["cond"], *limits)
    case.check_network("out", np.stack([model.velocity(x_t, t, condition) for t, x_t in noisy_inputs(case)]), *limits)

    t, x_t = (jnp.asarray(value) for value in next(noisy_inputs(case)))
    with jax.default_matmul_precision("highest"):
        denoise = jax.jit(lambda params: model.functional.bind(params).denoise(x_t, t, condition, features_after=1))
        features = np.asarray(denoise(model.params).features)
    expected = case.arrays["s_block_first"][0]
    tokens = features.reshape(features.shape[0], -1, features.shape[-1])
    slices = case.meta.get("slices", {}).get("s_block_first")
    channels = slice(*slices[-1]) if slices else slice(expected.shape[-1])
    assert_close(tokens[..., channels], expected, *limits)


@pytest.mark.parametrize(("folder", "name"), cases("one_step_cod_*", fast=FAST))
def test_one_step_decoding_matches_the_published_decoder(folder, name):
    case = Case(name, folder)
    model = load_reference("OneStepCoD", case.config, case.weights())
    z_q, indices = model.codec.quantize(model.codec.encode(case.image01()))
    np.testing.assert_array_equal(indices, case.arrays["indices"])
    noise = case.nhwc("noise_f16") if "noise_f16" in case.arrays else None
    case.check_network("out", model.one_step(model.codec.decode(z_q), noise))


@pytest.mark.parametrize("name", ["pixnerdit_small_up2x_64x64", "ddt_small_up2x_ds32_64x96"])
@pytest.mark.slow
def test_bfloat16_stays_near_float32(name):
    case = Case(name)
    model = load_reference(case.meta["class"], case.config, case.weights())
    half = build_model(model.config, ComputeConfig("bfloat16"))
    condition = model.codec.decode(model.codec.quantize(model.codec.encode(case.image01()))[0])
    t, x_t = next(noisy_inputs(case))
    full = np.asarray(model.velocity(x_t, t, condition))
    rounded = jax.jit(lambda params: half.bind(params).velocity(jnp.asarray(x_t), jnp.asarray(t), condition))
    difference = np.asarray(rounded(model.params)) - full
    assert np.sqrt(np.mean(difference**2)) <= 0.03 * np.sqrt(np.mean(full**2))
