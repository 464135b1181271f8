"""Compact models: their folded parameters, their programs, and their compiled folders."""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import cod_jax
from cod_jax.codec import from_bundle, tiles
from cod_jax.coding import container
from cod_jax.coding.entropy import Prior
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.models import ModelConfig, build_model, flatten_params
from cod_jax.models.functional import Params
from cod_jax.runtime.folder import Part, Platform, Sizes, read_description
from cod_jax.runtime.programs import calls_other_code
from cod_jax.specialize.folder import write_compiled
from cod_jax.specialize.folding import fold
from cod_jax.specialize.parts import storage_dtypes
from cod_jax.specialize.programs import export_program, size_ranges, split
from tests.coding_fixtures import predictive, related_channels
from tests.model_fixtures import gradient_image, numpy_params, tiny_compact_config
from tests.unit.codec.pixels import levels_apart
from tests.unit.specialize.decoders import decoder

LEVELS = 2
PLATFORMS: tuple[Platform, ...] = ("cpu", "cuda", "tpu")


@functools.cache
def model(pitch: Literal[8, 16] = 16) -> tuple[ModelConfig, Params]:
    config = tiny_compact_config(pitch=pitch, num_levels=LEVELS)
    params = numpy_params(build_model(config).shapes)
    params["codec"]["bottleneck"]["log_gains"][:] = np.log([[1.0], [4.0]])
    return config, params


@pytest.mark.parametrize("pitch", [16, 8])
def test_the_folded_decoder_is_the_model(pitch: Literal[8, 16]):
    config, params = model(pitch)
    side = 16 // pitch
    symbols = np.random.default_rng(0).integers(-3, 4, (2, 2 * side, 3 * side, config.codec.latent_channels))
    symbols, level = jnp.asarray(symbols, jnp.int32), jnp.arange(LEVELS, dtype=jnp.int32)

    @jax.jit
    def whole(params):
        bound = build_model(config).bind(params)
        return bound.one_step(bound.codec.decode(bound.codec.dequantize(symbols, level=level)))

    @jax.jit
    def folded(params):
        return decoder(config=config).bind(params).image(symbols, level, patches_per_chunk=1)

    expected = whole(params)
    np.testing.assert_allclose(folded(fold(config, params)[1]), expected, rtol=1e-5, atol=1e-5)
    # What is folded is no trifle.
    block = params["denoiser"]["blocks"]["block"]
    without = {**block, "modulation": jax.tree.map(np.zeros_like, block["modulation"])}
    changed = {**params, "denoiser": {**params["denoiser"], "blocks": {"block": without}}}
    assert np.abs(whole(changed) - expected).max() > 0.01


def test_nothing_that_is_constant_is_left():
    config, params = model()
    names = flatten_params(fold(config, params)[1])
    assert not [name for name in names if "timestep" in name or "modulation" in name or "patch_embed" in name]
    assert names["head/refine_in/kernel"].shape == (48, 8)


def test_what_is_stored_in_bfloat16_is_what_a_layer_rounds():
    config, params = model()
    functional = decoder("bfloat16", config)
    dtypes = storage_dtypes(functional.bind(fold(config, params)[1]))
    assert dtypes["trunk/blocks/block/mlp_in/kernel"] == "bfloat16"
    # Multiplied by its scale before it is rounded.
    assert {dtypes["head/project/kernel"], dtypes["head/norm/scale"], dtypes["bottleneck/step"]} == {"float32"}


@pytest.mark.parametrize("part", ["encode", "decode"])
def test_one_program_for_all_sizes_is_made_for_every_platform_anywhere(part: Part):
    config, params = model()
    assert size_ranges(config, part) == [Sizes()]
    (half,) = (half for half in split(config, params, "bfloat16") if half.part == part)
    for platform in PLATFORMS:
        exported = export.deserialize(bytearray(export_program(half, Sizes(), platform)))
        assert exported.platforms == (platform,)
        assert not calls_other_code(exported), "the runtime would refuse it"
        assert all(map(export.is_symbolic_dim, exported.in_avals[-2].shape[:3]))


@pytest.mark.slow
def test_a_compiled_folder_does_what_the_model_does(tmp_path: Path, monkeypatch):
    config, params = model()
    save_bundle(tmp_path / "m", config, params, training={})
    bundle = load_bundle(tmp_path / "m")
    assert bundle.prior is not None
    channels = config.codec.latent_channels
    prior = Prior({**bundle.prior.tables, **predictive(channels, LEVELS).arrays()})
    bundle = dataclasses.replace(bundle, prior=prior)
    write_compiled(tmp_path / "c", bundle, platforms=["cpu"], dtype="float32")
    plain, compiled = from_bundle(bundle), cod_jax.load(tmp_path / "c")
    assert (compiled.fingerprint, compiled.num_levels) == (plain.fingerprint, LEVELS)
    assert read_description(tmp_path / "c").encoding_bytes_per_pixel == config.codec.encoding_bytes_per_pixel == 50
    picture = gradient_image(40, 21)
    for quality in range(1, LEVELS + 1):
        data = plain.compress(picture, quality=quality)
        assert compiled.compress(picture, quality=quality) == data
        assert levels_apart(compiled.decompress(data), plain.decompress(data, steps=1)) <= 1
    symbols = related_channels(3, 2, channels, level=1, seed=1)
    data = compiled.engine.coder.encode(symbols, height=40, width=21, level=1)
    assert container.read(data).mode == "predictive"
    assert levels_apart(compiled.decompress(data), plain.decompress(data, steps=1)) <= 1
    # Tiles of 8x8 cells are enough for what encoder and decoder see.
    wide = gradient_image(144, 144)
    whole = compiled.encode(wide), compiled.decode(compiled.encode(wide))
    monkeypatch.setattr(tiles, "MAX_WHOLE_CELLS", 0)
    np.testing.assert_array_equal(compiled.encode(wide), whole[0])
    np.testing.assert_array_equal(compiled.decode(whole[0]), whole[1])
    # The model itself takes any number of steps.
    assert plain.decompress(data, steps=3, guidance=2.0).shape == (40, 21, 3)
