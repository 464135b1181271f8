"""One-step codecs without their constant parts do what the whole model does."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cod_jax.models import ComputeConfig, Functional, ModelConfig, build_model, flatten_params
from cod_jax.models.condition_codec import WINDOW
from cod_jax.models.config import Dtype
from cod_jax.models.functional import count_params
from cod_jax.nn.attention import QUERY_CHUNK
from cod_jax.runtime.folder import Platform
from cod_jax.specialize.folding import fold
from cod_jax.specialize.parts import OneStepDecoder, SymbolEncoder, storage_dtypes
from cod_jax.specialize.programs import check_supported, export_program, size_ranges, split
from tests.model_fixtures import tiny_bundle, tiny_latent_config, tiny_model_config, tiny_pixel_config

INDICES = np.array([[[3, 9, 1], [7, 2, 4]], [[15, 0, 0], [8, 8, 12]]], np.int32)


def decoder(dtype: Dtype = "float32") -> Functional[OneStepDecoder]:
    config = tiny_bundle().config
    return Functional(lambda rngs: OneStepDecoder(config, compute=ComputeConfig(dtype), rngs=rngs))


@functools.cache
def folded():
    bundle = tiny_bundle()
    return fold(bundle.config, bundle.params)


def decoded(functional: Functional[OneStepDecoder], params, patches_per_chunk: int) -> np.ndarray:
    """The image, not rounded to bytes, so that small differences show."""
    run = jax.jit(lambda params, indices: functional.bind(params).image(indices, patches_per_chunk=patches_per_chunk))
    return np.asarray(run(params, INDICES))


@jax.jit
def whole_model(params, indices) -> jax.Array:
    model = build_model(tiny_bundle().config).bind(params)
    return model.one_step(model.codec.decode(model.codec.dequantize(indices)))


def without_modulation(params):
    """The same model with the adaLN layers of its condition blocks at zero, as a fold that forgot them."""
    block = params["denoiser"]["blocks"]["block"]
    blank = {**block, "modulation": jax.tree.map(np.zeros_like, block["modulation"])}
    return {**params, "denoiser": {**params["denoiser"], "blocks": {"block": blank}}}


def test_the_folded_decoder_is_the_model():
    params = tiny_bundle().params
    expected = np.asarray(whole_model(params, INDICES))
    np.testing.assert_allclose(decoded(decoder(), folded()[1], 16), expected, rtol=1e-5, atol=1e-5)
    # What is folded is no trifle.
    assert np.abs(np.asarray(whole_model(without_modulation(params), INDICES)) - expected).max() > 0.1


def test_chunks_change_nothing():
    # 12 patches: in one chunk; in 3 of 4, although 5 would fit; one by one. Sums may be taken in another order.
    whole, *chunked = (decoded(decoder(), folded()[1], patches) for patches in (16, 5, 1))
    for one in chunked:
        np.testing.assert_allclose(one, whole, rtol=0, atol=5e-6)


def test_storing_bfloat16_rounds_nothing_more():
    functional, params = decoder("bfloat16"), folded()[1]
    dtypes = storage_dtypes(functional.bind(params))
    assert dtypes.keys() == flatten_params(functional.shapes).keys()
    stored = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.astype(jnp.dtype(dtypes[jax.tree_util.keystr(path, simple=True, separator="/")])),
        params,
    )
    kinds = {name: leaf.dtype.name for name, leaf in flatten_params(stored).items()}
    assert kinds["blocks/block/mlp_in/kernel"] == "bfloat16"
    for name in ("codec/bottleneck/codebook", "head/out/kernel", "head/norm_out/scale"):
        assert kinds[name] == "float32"
    np.testing.assert_array_equal(decoded(functional, stored, 16), decoded(functional, params, 16))


def test_nothing_that_depends_on_the_timestep_is_left():
    names = set(flatten_params(folded()[1]))
    assert not any("timestep" in name or "patch_embed" in name or "embed/" in name for name in names)
    # The head's own modulation depends on the picture.
    assert {name for name in names if "modulation" in name} == {
        "head/blocks/0/modulation/bias",
        "head/blocks/0/modulation/kernel",
    }


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
    codebook = 2**config.codec.codebook_bits * config.codec.latent_channels  # both halves have it
    kept = sum(count_params(half.shapes) for half in halves)
    assert kept == whole - modulation - timestep - noise - embedding + codebook


def test_programs_for_every_platform_are_made_anywhere():
    config = tiny_bundle().config
    platforms: tuple[Platform, ...] = ("cpu", "cuda", "tpu")
    for half, platform in itertools.product(split(config, tiny_bundle().params, "bfloat16"), platforms):
        data = export_program(half, config, size_ranges(config)[0], platform)
        assert len(data) < 2**17 < sum(array.nbytes for array in half.weights.values()), "weights belong beside it"
        exported = export.deserialize(bytearray(data))
        assert exported.platforms == (platform,)
        batch, rows, columns = exported.in_avals[-1].shape[:3]
        assert all(map(export.is_symbolic_dim, (batch, rows, columns)))


@pytest.mark.parametrize("attention", ["global", "window_published", "window_masked"])
@pytest.mark.parametrize("pitch", [4, 8, 16, 32])
def test_every_size_has_one_program(attention, pitch):
    ranges = size_ranges(tiny_model_config(pitch=pitch, attention=attention))
    for grid in [(rows, columns) for rows in range(1, 70, 3) for columns in range(1, 70)] + [(1, 10**6), (10**6, 1)]:
        (sizes,) = (sizes for sizes in ranges if grid in sizes)
        symbols = [side * (max(pitch, 16) // pitch) for side in grid]
        if attention == "global":
            assert (symbols[0] * symbols[1] <= 2 * QUERY_CHUNK) == (sizes is ranges[0])
        else:
            assert (max(symbols) <= WINDOW) == (sizes is ranges[0])


@pytest.mark.parametrize("config", [tiny_pixel_config(), tiny_latent_config()], ids=["pixel", "latent"])
def test_other_models_are_refused(config):
    with pytest.raises(ValueError, match=r"only CoD-Lite .* can be compiled, not a model with denoiser"):
        check_supported(config)
    with pytest.raises(ValueError, match="cannot be decoded in one step by this class"):
        Functional(lambda rngs: OneStepDecoder(config, compute=ComputeConfig(), rngs=rngs))


def test_the_deep_codec_is_refused():
    with pytest.raises(ValueError, match="the deep codec of pitch 128 cannot be compiled"):
        check_supported(tiny_model_config(pitch=128))
