"""One-step codecs without their constant parts do what the whole model does."""

import dataclasses
import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cod_jax.models import (
    ComputeConfig,
    DConvConfig,
    FactorizedConfig,
    Functional,
    ModelConfig,
    PixNerDiTConfig,
    build_model,
    flatten_params,
)
from cod_jax.models.bottlenecks.factorized import FixedBins
from cod_jax.models.compute import Dtype
from cod_jax.models.condition_codec import WINDOW
from cod_jax.models.functional import count_params
from cod_jax.nn.attention import MAX_WHOLE_QUERIES
from cod_jax.runtime.folder import Part, Platform, Sizes
from cod_jax.runtime.programs import calls_other_code
from cod_jax.specialize.folding import fold
from cod_jax.specialize.parts import OneStepDecoder, SymbolEncoder, storage_dtypes
from cod_jax.specialize.programs import check_supported, export_program, size_ranges, split
from tests.model_fixtures import (
    numpy_params,
    tiny_bundle,
    tiny_latent_config,
    tiny_model_config,
    tiny_pixel_config,
)

SYMBOLS = np.array([[[3, 9, 1], [7, 2, 4]], [[15, 0, 0], [8, 8, 12]]], np.int32)[..., None]
LEVELS = np.zeros(2, np.int32)


def decoder(dtype: Dtype = "float32", config: ModelConfig | None = None) -> Functional[OneStepDecoder]:
    config = config or tiny_model_config()
    return Functional(lambda rngs: OneStepDecoder(config, compute=ComputeConfig(dtype), rngs=rngs))


@functools.cache
def folded():
    bundle = tiny_bundle()
    return fold(bundle.config, bundle.params)


def decoded(functional: Functional[OneStepDecoder], params, patches_per_chunk: int) -> np.ndarray:
    """The image, not rounded to bytes, so that small differences show."""

    @jax.jit
    def run(params, symbols, level):
        return functional.bind(params).image(symbols, level, patches_per_chunk=patches_per_chunk)

    return np.asarray(run(params, SYMBOLS, LEVELS))


def whole_model(config: ModelConfig, params) -> np.ndarray:
    @jax.jit
    def run(params, symbols):
        model = build_model(config).bind(params)
        return model.one_step(model.codec.decode(model.codec.dequantize(symbols)))

    return np.asarray(run(params, SYMBOLS))


def without_modulation(params):
    """The same model with the adaLN layers of its condition blocks at zero, as a fold that forgot them."""
    block = params["denoiser"]["blocks"]["block"]
    blank = {**block, "modulation": jax.tree.map(np.zeros_like, block["modulation"])}
    return {**params, "denoiser": {**params["denoiser"], "blocks": {"block": blank}}}


@pytest.mark.parametrize("config", [tiny_model_config(), tiny_pixel_config()], ids=["dconv", "pixnerdit"])
def test_the_folded_decoder_is_the_model(config):
    params = numpy_params(build_model(config).shapes)
    expected = whole_model(config, params)
    folded_params = fold(config, params)[1]
    np.testing.assert_allclose(decoded(decoder(config=config), folded_params, 16), expected, rtol=1e-5, atol=1e-5)
    # What is folded is no trifle.
    assert np.abs(whole_model(config, without_modulation(params)) - expected).max() > 0.1


@pytest.mark.parametrize("config", [tiny_model_config(), tiny_pixel_config()], ids=["dconv", "pixnerdit"])
def test_what_stays_as_it_is_is_not_copied(config):
    params = numpy_params(build_model(config).shapes)
    own = list(flatten_params(params).values())
    halves = [flatten_params(half) for half in fold(config, params)]
    for name, value in [*halves[0].items(), *halves[1].items()]:
        is_shared = any(np.shares_memory(value, array) for array in own)
        assert is_shared or name.startswith(("trunk/", "head/condition/")), name


@pytest.mark.parametrize("num_levels", [1, 3])
def test_folded_bins_are_those_of_the_factorized_bottleneck(num_levels):
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=num_levels))
    functional = build_model(config)
    params = numpy_params(functional.shapes)
    bins = FixedBins(num_levels, 8)
    bins.step[...], bins.offset[...] = (fold(config, params)[0]["bottleneck"][name] for name in ("step", "offset"))
    quantizer: Any = functional.bind(jax.tree.map(jnp.asarray, params)).codec.bottleneck
    level = jnp.arange(num_levels, dtype=jnp.int32)
    z = 20 * jax.random.normal(jax.random.key(0), (num_levels, 4, 4, 8))
    z = z.at[0, 0, 0, 0].set(1e9)
    expected = quantizer(z, level)
    symbols = bins.nearest(z, level)
    np.testing.assert_array_equal(symbols, expected.symbols)
    np.testing.assert_allclose(bins.lookup(symbols, level), expected.values, rtol=1e-6, atol=1e-6)
    assert np.abs(bins.offset[...]).max() > 0.1


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


@pytest.mark.parametrize(
    ("config", "platforms"),
    [(tiny_model_config(), ("cpu", "cuda", "tpu")), (tiny_pixel_config(), ("cuda",))],
    ids=["dconv", "pixnerdit"],
)
def test_programs_for_every_platform_are_made_anywhere(config, platforms: tuple[Platform, ...]):
    params = numpy_params(build_model(config).shapes)
    for half, platform in itertools.product(split(config, params, "bfloat16"), platforms):
        data = export_program(half, size_ranges(config, half.part)[0], platform)
        assert len(data) < 2**17 < sum(array.nbytes for array in half.weights.values()), "weights belong beside it"
        exported = export.deserialize(bytearray(data))
        assert exported.platforms == (platform,)
        assert not calls_other_code(exported), "the runtime would refuse it"
        products = re.findall(r"(?:dot_general|convolution)\b.*", exported.mlir_module())
        # Fast kernels do not take bfloat16 products that ask for more; float32 ones must ask for it.
        exact = [line for line in products if "HIGHEST" in line]
        assert exact
        assert not any("bf16" in line for line in exact)
        batch, rows, columns = exported.in_avals[-1].shape[:3]
        assert all(map(export.is_symbolic_dim, (batch, rows, columns)))


@pytest.mark.parametrize("denoiser", [DConvConfig(), PixNerDiTConfig()], ids=["dconv", "pixnerdit"])
@pytest.mark.parametrize("attention", ["global", "window_published", "window_masked"])
@pytest.mark.parametrize("pitch", [4, 8, 16, 32])
@pytest.mark.parametrize("part", ["encode", "decode"])
def test_every_size_has_one_program_and_every_program_is_another(part: Part, attention, pitch, denoiser):
    config = dataclasses.replace(tiny_model_config(pitch=pitch, attention=attention), denoiser=denoiser)
    ranges = size_ranges(config, part)
    decisions: dict[Sizes, set[tuple[bool, ...]]] = {}
    for grid in [(rows, columns) for rows in range(1, 70, 3) for columns in range(1, 70)] + [(1, 10**6), (10**6, 1)]:
        (sizes,) = (sizes for sizes in ranges if grid in sizes)
        symbols = [side * (max(pitch, 16) // pitch) for side in grid]
        patches = grid[0] * grid[1] * (max(pitch, 16) // 16) ** 2
        is_cut = [side > WINDOW for side in symbols] if attention != "global" else [False, False]
        # A side that is cut makes that of the other indifferent.
        decision = [is_cut[0], not is_cut[0] and is_cut[1]]
        if attention == "global":
            decision.append(symbols[0] * symbols[1] > MAX_WHOLE_QUERIES)
        if part == "decode" and denoiser.kind == "pixnerdit":
            decision.append(patches > MAX_WHOLE_QUERIES)
        decisions.setdefault(sizes, set()).add(tuple(decision))
    assert len(decisions) == len(ranges)
    assert all(len(made) == 1 for made in decisions.values()), "one program does one thing"
    assert len(set.union(*decisions.values())) == len(ranges), "two programs do the same"


def test_models_on_latents_are_refused():
    config = tiny_latent_config()
    with pytest.raises(
        ValueError, match=r"only models on pixels can be compiled, got one on latents \(denoiser.kind ddt\)"
    ):
        check_supported(config)
    with pytest.raises(ValueError, match="expected a denoiser of kind dconv or pixnerdit, got ddt"):
        decoder(config=config)


def test_the_deep_codec_is_refused():
    with pytest.raises(ValueError, match=r"the deep codec \(pitch 128\) cannot be compiled"):
        check_supported(tiny_model_config(pitch=128))
