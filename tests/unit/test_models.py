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
    unflatten_params,
)
from cod_jax.models.functional import Params, count_params
from tests.model_fixtures import numpy_params, tiny_model_config, tiny_pixel_config


@pytest.fixture(scope="module")
def tiny():
    functional = build_model(tiny_model_config())
    return functional, jax.tree.map(jnp.asarray, numpy_params(functional.shapes))


def test_published_size_has_the_published_number_of_parameters():
    functional = build_model(
        ModelConfig(ConditionCodecConfig(pitch=16, input_stride=2, bottleneck=CodebookConfig(bits=8)))
    )
    assert count_params(functional.shapes) == 98_781_123


@pytest.mark.parametrize(
    ("pitch", "input_stride", "symbols"),
    [(4, 2, 32), (8, 2, 16), (16, 2, 8), (32, 2, 4), (16, 1, 8), (8, 1, 16), (64, 1, 2), (128, 2, 1)],
)
def test_every_pitch_ends_on_the_sixteen_pixel_grid(pitch, input_stride, symbols):
    functional = build_model(tiny_model_config(pitch=pitch, input_stride=input_stride))

    def run(params, image01):
        model = functional.bind(params)
        z = model.codec.encode(image01)
        quantized = model.codec.quantize(z)
        condition = model.codec.decode(quantized.values)
        return z, quantized.symbols, condition, model.one_step(condition)

    image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
    z, indices, condition, result = jax.eval_shape(run, functional.shapes, image)
    assert z.shape == (1, symbols, symbols, 8)
    assert indices.shape == (1, symbols, symbols, 1)
    assert indices.dtype == jnp.int32
    assert condition.shape == (1, 8, 8, 32)
    assert result.shape == (1, 128, 128, 3)


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
    assert all(not np.any(value) for name, value in flat.items() if name.endswith("bias"))
    assert all(np.all(value == 1) for name, value in flat.items() if name.endswith("scale"))
    codebook = flat["codec/bottleneck/codebook"]
    assert np.abs(codebook).max() <= 1 / 16
    kernels = flat["denoiser/blocks/block/expand/kernel"]
    assert not np.allclose(kernels[0], kernels[1])
    limit = np.sqrt(6 / (32 + 32))
    assert 0.9 * limit < np.abs(kernels).max() <= limit


def test_three_output_layers_in_a_row_do_not_all_start_at_zero():
    functional = build_model(tiny_model_config(pitch=4))
    flat = flatten_params(functional.init(jax.random.key(0)))
    zero = {name for name, value in flat.items() if "decoder/output" in name and not np.any(value)}
    assert zero == {
        f"codec/decoder/output/{name}"
        for name in ("0/bias", "1/conv1/bias", "1/conv2/bias", "1/norm1/bias", "1/norm2/bias", "2/bias", "2/kernel")
    }


def test_every_parameter_names_its_axes(tiny):
    functional, _ = tiny
    axes = flatten_params(functional.axes)
    for name, shape in flatten_params(functional.shapes).items():
        assert len(axes[name]) == len(shape.shape), name


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


def test_pixel_head_row_by_row_gives_the_same_picture(tiny):
    functional, params = tiny
    condition = jax.random.normal(jax.random.key(3), (2, 3, 2, 32))

    def decode(by_rows):
        return jax.jit(lambda: functional.bind(params).one_step(condition, by_rows=by_rows))()

    np.testing.assert_allclose(decode(True), decode(False), atol=1e-5)


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


def test_parameters_survive_flattening(tiny):
    functional, params = tiny
    again = unflatten_params(flatten_params(params), functional.shapes)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_parameters_that_do_not_fit_are_refused_with_three_lists(tiny):
    functional, params = tiny
    flat = flatten_params(params)
    del flat["denoiser/merge/bias"]
    flat["denoiser/unmerge/bias"] = np.zeros(3)
    flat["codec/bottleneck/codebook"] = np.zeros((2, 2))
    with pytest.raises(ValueError, match="do not fit") as error:
        unflatten_params(flat, functional.shapes)
    assert "missing (1): denoiser/merge/bias" in str(error.value)
    assert "unexpected (1): denoiser/unmerge/bias" in str(error.value)
    assert "codec/bottleneck/codebook (2, 2) instead of (16, 8)" in str(error.value)
    # Binding checks as well: merging alone would go by order.
    swapped = {"denoiser": params["denoiser"], "codec": {**params["codec"], "decoder": params["codec"]["encoder"]}}
    with pytest.raises(ValueError, match="do not fit"):
        functional.bind(swapped)


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


def test_config_survives_plain_values():
    config = tiny_model_config(attention="window_masked")
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codec": {"pich": 16}}, r"unknown field model.codec.pich; did you mean model.codec.pitch\?"),
        ({"encoder": {}}, "unknown field model.encoder"),
        ({"codec": 3}, "model.codec must hold the fields pitch, .* got 3"),
        ({"codec": {"pitch": "16"}}, "model.codec.pitch must be of type int, got '16'"),
        ({"codec": {"pitch": 24}}, "pitch must be a power of two and a multiple of input_stride 1, got 24"),
        ({"codec": {"pitch": 2}}, "downsamplings"),
        ({"codec": {"pitch": 64, "input_stride": 2}}, "downsamplings"),
        ({"codec": {"encoder_width": 48}}, "encoder_width must be a multiple of num_groups 32, got 48"),
        ({"codec": {"attention": "local"}}, "attention must be one of .* got 'local'"),
        ({"codec": {"codebook_bits": 17}}, "bits must be between 1 and 16, got 17"),
        ({"denoiser": {"hidden": 100}}, "denoiser.hidden must be a multiple of codec.num_groups 32, got 100"),
        ({"denoiser": {"prediction": "x"}}, "prediction must be one of image, velocity, got 'x'"),
        ({"denoiser": {"num_blocks": 0}}, "num_blocks must be between 1 and 1024, got 0"),
        ({"denoiser": {"patch_size": 16}}, "unknown field model.denoiser.patch_size"),
        ({"denoiser": {"mlp_ratio": float("inf")}}, "mlp_ratio must be at most 64, got inf"),
        ({"denoiser": {"mlp_ratio": float("nan")}}, "mlp_ratio must be at least .* for 384 channels, got nan"),
        ({"denoiser": {"num_pixel_blocks": 10**6}}, "num_pixel_blocks must be between 1 and 64, got 1000000"),
        ({"codec": {"encoder_width": 2**20}}, "encoder_width must be between 1 and 16384, got 1048576"),
    ],
)
def test_config_errors_say_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(values)
