"""The two halves of a one-step codec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.models import (
    ComputeConfig,
    Functional,
    ModelConfig,
    PixNerDiTConfig,
    build_model,
    flatten_params,
)
from cod_jax.models.functional import count_params
from cod_jax.specialize.folding import fold
from cod_jax.specialize.parts import OneStepDecoder, SymbolEncoder, storage_dtypes
from tests.model_fixtures import (
    numpy_params,
    tiny_model_config,
    tiny_pixel_config,
)
from tests.unit.specialize.decoders import decoded, decoder, folded


def test_chunks_change_nothing():
    # 12 patches: in one chunk; in 3 of 4, although 5 would fit; one by one. Sums may be taken in another order.
    whole, *chunked = (decoded(decoder(), folded()[1], patches) for patches in (16, 5, 1))
    for one in chunked:
        np.testing.assert_allclose(one, whole, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("config", "narrow"),
    [
        (tiny_model_config(), {"trunk/merge/bias", "trunk/blocks/block/mlp_in/kernel"}),
        (
            tiny_pixel_config(),
            {"trunk/merge/bias", "trunk/blocks/block/attention/qkv", "head/blocks/block/generate/bias"},
        ),
    ],
    ids=["dconv", "pixnerdit"],
)
def test_storing_bfloat16_rounds_nothing_more(config, narrow):
    params = fold(config, numpy_params(build_model(config).shapes))[1]
    functional = decoder("bfloat16", config)
    dtypes = storage_dtypes(functional.bind(params))
    assert dtypes.keys() == flatten_params(functional.shapes).keys()
    stored = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.astype(jnp.dtype(dtypes[jax.tree_util.keystr(path, simple=True, separator="/")])),
        params,
    )
    kinds = {name: leaf.dtype.name for name, leaf in flatten_params(stored).items()}
    assert {kinds[name] for name in narrow} == {"bfloat16"}
    for name in ("bottleneck/codebook", "head/out/kernel", "head/norm_out/scale"):
        assert kinds[name] == "float32"
    np.testing.assert_array_equal(decoded(functional, stored, 16), decoded(functional, params, 16))


def test_the_published_size_loses_what_is_constant_and_no_more():
    config = ModelConfig()
    whole = count_params(build_model(config).shapes)
    halves = [
        Functional(lambda rngs, part=part: part(config, compute=ComputeConfig(), rngs=rngs))
        for part in (SymbolEncoder, OneStepDecoder)
    ]
    hidden, pixel, features, layers = 384, 32, 256, 21
    modulation = layers * (hidden * 6 * hidden + 6 * hidden)
    timestep = (features * hidden + hidden) + (hidden * hidden + hidden)
    noise = 3 * 256 * 128 + 128 * hidden
    embedding = ((3 + pixel + 64) * pixel + pixel) + (pixel * pixel + pixel)
    codebook = (config.codec.symbols.last + 1) * config.codec.latent_channels  # both halves have it
    kept = sum(count_params(half.shapes) for half in halves)
    assert kept == whole - modulation - timestep - noise - embedding + codebook


def test_one_step_cod_loses_what_is_constant_and_no_more():
    config = ModelConfig(denoiser=PixNerDiTConfig())
    whole, decoder_alone = (
        count_params(shapes) for shapes in (build_model(config).shapes["denoiser"], decoder(config=config).shapes)
    )
    hidden, pixel, features, layers = 1152, 64, 256, 26
    codec = count_params(decoder(config=config).shapes["decoder"]) + 16 * 128
    modulation = layers * (hidden * 6 * hidden + 6 * hidden)
    timestep = (features * hidden + hidden) + (hidden * hidden + hidden)
    embedding = (3 + pixel + 64) * pixel + pixel
    constants = layers * 6 * hidden + hidden
    assert decoder_alone == codec + whole - modulation - timestep - 3 * 256 * hidden - embedding + constants
