"""The condition codec, whose grids follow from the pitch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.models import (
    build_model,
    flatten_params,
)
from tests.model_fixtures import tiny_model_config


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


@pytest.mark.slow
def test_three_output_layers_in_a_row_do_not_all_start_at_zero():
    functional = build_model(tiny_model_config(pitch=4))
    flat = flatten_params(functional.init(jax.random.key(0)))
    zero = {name for name, value in flat.items() if "decoder/output" in name and not np.any(value)}
    assert zero == {
        f"codec/decoder/output/{name}"
        for name in ("0/bias", "1/conv1/bias", "1/conv2/bias", "1/norm1/bias", "1/norm2/bias", "2/bias", "2/kernel")
    }
