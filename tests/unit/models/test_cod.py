"""Whole models: parameters, predictions, one step, and ways to compute them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.models import (
    CodebookConfig,
    ComputeConfig,
    ConditionCodecConfig,
    DConvConfig,
    ModelConfig,
    build_model,
    flatten_params,
)
from cod_jax.models.functional import Params, count_params
from tests.model_fixtures import numpy_params, tiny_model_config, tiny_pixel_config


def test_published_size_has_the_published_number_of_parameters():
    functional = build_model(
        ModelConfig(ConditionCodecConfig(pitch=16, input_stride=2, bottleneck=CodebookConfig(bits=8)))
    )
    assert count_params(functional.shapes) == 98_781_123


@pytest.mark.slow
def test_fresh_parameters_start_at_zero_where_the_papers_say():
    functional = build_model(tiny_model_config(pitch=32))
    params = functional.init(jax.random.key(0))
    flat = flatten_params(params)
    zero = {name for name, value in flat.items() if name.endswith("kernel") and not np.any(value)}
    assert zero == {
        "codec/decoder/output/0/kernel",
        "codec/decoder/output/1/block/conv2/kernel",
        "denoiser/blocks/block/modulation/kernel",
        "denoiser/head/blocks/0/modulation/kernel",
        "denoiser/head/out/kernel",
    }
    # With zeros an even picture would be zero in every layer, and groups without variation have no useful gradient.
    random = {name for name, value in flat.items() if name.endswith("bias") and np.any(value)}
    assert random == {"codec/encoder/conv_in/bias", "codec/decoder/conv_in/bias"}
    assert all(np.all(value == 1) for name, value in flat.items() if name.endswith("scale"))
    codebook = flat["codec/bottleneck/codebook"]
    assert np.abs(codebook).max() <= 1 / 16
    kernels = flat["denoiser/blocks/block/expand/kernel"]
    assert not np.allclose(kernels[0], kernels[1])
    limit = np.sqrt(6 / (32 + 32))
    assert 0.9 * limit < np.abs(kernels).max() <= limit


def test_velocity_of_an_image_prediction_is_clamped_near_the_image(tiny):
    functional, params = tiny
    model = functional.bind(params)
    x_t = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    condition = jax.random.normal(jax.random.key(1), (2, 1, 1, 32))
    t = jnp.array([0.25, 0.99])
    prediction = model.predict(x_t, t, condition)
    expected = (prediction - x_t) / jnp.array([0.75, 0.05])[:, None, None, None]
    np.testing.assert_allclose(model.velocity(x_t, t, condition), expected, rtol=1e-6)


def test_one_step_of_both_predictions():
    condition = jax.random.normal(jax.random.key(1), (1, 1, 1, 32))
    noise = jax.random.normal(jax.random.key(2), (1, 16, 16, 3))
    for prediction in ("image", "velocity"):
        denoiser = tiny_model_config().denoiser
        assert isinstance(denoiser, DConvConfig)
        config = ModelConfig(tiny_model_config().codec, dataclasses.replace(denoiser, prediction=prediction))
        functional = build_model(config)
        model = functional.bind(jax.tree.map(jnp.asarray, numpy_params(functional.shapes)))
        raw = model.predict(noise, jnp.zeros((1,)), condition)
        expected = raw + noise if prediction == "velocity" else raw
        np.testing.assert_allclose(model.one_step(condition, noise), expected, rtol=1e-6)
        zero = model.predict(jnp.zeros_like(noise), jnp.zeros((1,)), condition)
        np.testing.assert_allclose(model.one_step(condition), zero, rtol=1e-6)


@pytest.mark.slow
def test_bfloat16_network_stays_near_the_float32_one(tiny):
    functional, params = tiny
    image01 = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    half = build_model(tiny_model_config(), ComputeConfig("bfloat16"))

    def run(functional):
        model = functional.bind(params)
        z = model.codec.encode(image01)
        condition = model.codec.decode(jnp.ones((1, 2, 2, 8)))
        return z, model.one_step(condition)

    for exact, rounded in zip(jax.jit(lambda: run(functional))(), jax.jit(lambda: run(half))(), strict=True):
        error = np.sqrt(np.mean((np.asarray(rounded, np.float32) - exact) ** 2) / np.mean(np.asarray(exact) ** 2))
        assert 1e-4 < error < 3e-2
    assert half.bind(params).codec.quantize(jnp.ones((1, 1, 1, 8), jnp.bfloat16)).values.dtype == jnp.float32


@pytest.mark.slow
def test_how_blocks_are_computed_changes_neither_images_nor_gradients():
    config = tiny_pixel_config()
    params = jax.tree.map(jnp.asarray, numpy_params(build_model(config).shapes))
    x_t = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    condition = jax.random.normal(jax.random.key(1), (1, 2, 2, 32))

    def run(**compute: Any) -> tuple[jax.Array, Params]:
        functional = build_model(config, ComputeConfig(**compute))

        def loss(params: Params) -> jax.Array:
            return jnp.mean(functional.bind(params).velocity(x_t, jnp.full((1,), 0.5), condition) ** 2)

        return jax.jit(jax.value_and_grad(loss))(params)

    expected = run()
    for compute in ({"remat": "full"}, {"remat": "dots", "unroll": True}):
        for found, wanted in zip(jax.tree.leaves(run(**compute)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
