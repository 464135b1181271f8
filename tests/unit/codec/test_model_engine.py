"""The engine of model folders does what the model does, with all settings of decoding."""

import dataclasses
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cod_jax
from cod_jax import images
from cod_jax.codec import from_bundle
from cod_jax.coding import container
from cod_jax.coding.entropy.fitting import fit_prior
from cod_jax.diffusion.noise import seed_words, seeded_noise
from cod_jax.diffusion.samplers import sample
from cod_jax.errors import UserError
from cod_jax.features.sd_vae import SDVAEConfig
from cod_jax.model_folder.bundle import Bundle
from cod_jax.models import build_model
from cod_jax.models.space import Space
from tests.model_fixtures import (
    gradient_image,
    numpy_params,
    save_tiny_model,
    tiny_bundle,
    tiny_codec,
    tiny_latent_config,
    tiny_pixel_config,
    tiny_sampling_codec,
)

PITCH = 16


def test_the_codec_is_what_the_model_does():
    image_uint8 = gradient_image(32, 48)
    bundle = tiny_bundle()
    functional = build_model(bundle.config)

    @jax.jit
    def whole(params, image01):
        model = functional.bind(params)
        symbols = model.codec.quantize(model.codec.encode(image01)).symbols
        return symbols, images.signed_to_uint8(model.one_step(model.codec.decode(model.codec.dequantize(symbols))))

    symbols, decoded = whole(bundle.params, image_uint8[None] / np.float32(255))
    codec = tiny_codec()
    data = codec.compress(image_uint8)
    picture = codec.engine.coder.decode(data, max_pixels=2**20)
    np.testing.assert_array_equal(picture.symbols, symbols[0])
    assert len(np.unique(picture.symbols)) > 1
    # Compiled in other pieces, float32 may round a value to the neighbouring level.
    assert np.abs(codec.decompress(data).astype(int) - np.asarray(decoded[0], int)).max() <= 1


def test_symbols_finer_than_the_patch_grid():
    # At pitch 8 the model takes multiples of 16 pixels, so an odd number of rows or columns of symbols is filled up.
    codec = tiny_codec(pitch=8)
    data = codec.compress(gradient_image(24, 15))
    assert len(data) == 12 + 3
    assert codec.decompress(data).shape == (24, 15, 3)
    symbols = codec.encode(gradient_image(24, 15))
    assert symbols.shape == (3, 2, 1)
    filled = np.concatenate([symbols, symbols[-1:]])
    np.testing.assert_array_equal(codec.decode(symbols), codec.decode(filled))


def test_the_model_chooses_the_attention():
    image_uint8 = gradient_image(16, 33 * 16)
    everywhere = tiny_codec(attention="global").encode(image_uint8)
    in_windows = tiny_codec(attention="window_published").encode(image_uint8)
    assert not np.array_equal(everywhere, in_windows)


def test_a_file_of_another_model_is_refused_and_both_are_named(tmp_path: Path, monkeypatch):
    save_tiny_model(tmp_path / "models" / "known")
    known = cod_jax.load(tmp_path / "models" / "known")
    data = known.compress(gradient_image(16, 16))
    message = f"made with the model of fingerprint {known.fingerprint[:8]}, and this one has 00000000; decompress with"
    with pytest.raises(UserError, match=f"{message} the model folder, its prior included, that compressed$"):
        tiny_codec().decompress(data)
    monkeypatch.setenv("COD_JAX_MODELS", str(tmp_path / "models"))
    with pytest.raises(UserError, match=f"{message} .*, which is .*known$"):
        tiny_codec().decompress([data])


def test_a_prior_makes_smaller_files_of_the_same_pictures():
    flat = np.full((90, 70, 3), 90, np.uint8)
    bundle = tiny_bundle()
    codebook = bundle.params["codec"]["bottleneck"]["codebook"]
    prior = fit_prior([tiny_codec().encode(flat)], codebook)
    codec = from_bundle(dataclasses.replace(bundle, prior=prior))
    data, raw = codec.compress(flat), tiny_codec().compress(flat)
    assert container.read(data).mode == "context"
    assert len(data) < len(raw)
    assert container.read(data).model == codec.fingerprint[:8] != tiny_codec().fingerprint[:8]
    np.testing.assert_array_equal(codec.decompress(data), tiny_codec().decompress(raw))
    np.testing.assert_array_equal(codec.decompress(raw), tiny_codec().decompress(raw))
    with pytest.raises(UserError, match="and this one has 00000000"):
        tiny_codec().decompress(data)


def sampled(kind: str, symbols: np.ndarray, *, seed: int, num_steps: int, guidance_scale: float) -> np.ndarray:
    """Adams steps from the seed's noise, without the codec's program; values before they become 8 bits."""
    config = tiny_pixel_config() if kind == "pixel" else tiny_latent_config()
    functional, space = build_model(config), Space(config)
    image_shape = (1, symbols.shape[0] * PITCH, symbols.shape[1] * PITCH, 3)

    @jax.jit
    def whole(params):
        model = functional.bind(params)
        null = model.codec.quantize(model.codec.encode(jnp.full(image_shape, -1.0))).values
        values = sample(
            model.velocity,
            seeded_noise(seed_words(seed), config.values_shape(image_shape)),
            model.codec.decode(model.codec.dequantize(jnp.asarray(symbols[None]))),
            model.codec.decode(null),
            num_steps=num_steps,
            method="adams",
            guidance_scale=guidance_scale,
        )
        return images.signed_to_uint8(space.decode({}, values))

    return np.asarray(whole(numpy_params(functional.shapes))[0])


@pytest.mark.parametrize(
    ("kind", "size"), [("pixel", (20, 30)), pytest.param("latent", (32, 32), marks=pytest.mark.slow)]
)
def test_a_sampled_picture_is_what_the_model_samples(kind, size: tuple[int, int]):
    codec = tiny_sampling_codec(kind)
    data = codec.compress(gradient_image(*size))
    symbols = codec.encode(gradient_image(*size))
    by_default = codec.decompress(data)
    assert by_default.shape == (*size, 3)
    expected = sampled(kind, symbols, seed=0, num_steps=3, guidance_scale=2.0)[: size[0], : size[1]]
    assert np.abs(by_default.astype(int) - expected).max() <= 1
    assert expected.std() > 1
    chosen = codec.decompress(data, steps=3, guidance=2.0, sampler="adams", seed=0)
    np.testing.assert_array_equal(chosen, by_default)


def test_the_seed_chooses_among_sampled_pictures():
    codec = tiny_sampling_codec("pixel")
    data = codec.compress(gradient_image(20, 30))
    pictures = [codec.decompress(data, seed=seed) for seed in (0, 7, 2**32 + 7, 2**63 - 1)]
    for index, picture in enumerate(pictures):
        for other in pictures[:index]:
            assert np.mean(picture != other) > 0.5
    np.testing.assert_array_equal(codec.decompress([data, data], seed=7)[1], pictures[1])


@pytest.fixture
def num_traced(monkeypatch) -> Callable[[], int]:
    """Count how often a program that decodes is made."""
    calls = []
    convert = images.signed_to_uint8
    monkeypatch.setattr(images, "signed_to_uint8", lambda values: calls.append(1) or convert(values))
    return lambda: len(calls)


def test_another_seed_or_guidance_compiles_nothing(num_traced):
    codec = tiny_sampling_codec("pixel")
    symbols = codec.encode(gradient_image(32, 32))
    guided = codec.decode(symbols)
    before = num_traced()
    stronger = codec.decode(symbols, guidance=4.5, seed=3)
    assert num_traced() == before
    assert not np.array_equal(stronger, guided)
    weaker = codec.decode(symbols, guidance=1.0)
    assert num_traced() == before + 1
    assert not np.array_equal(weaker, guided)


@pytest.mark.slow
def test_latents_become_pixels_by_the_autoencoder_of_the_bundle(monkeypatch):
    vae = SDVAEConfig(widths=(4, 4, 4, 4), encoder_blocks=1, num_groups=2)
    monkeypatch.setattr("cod_jax.models.space.SDVAEConfig", lambda: vae)
    config = tiny_latent_config("sd_vae")
    functional, space = build_model(config), Space(config)
    assert space.functional is not None
    params, autoencoder = numpy_params(functional.shapes), numpy_params(space.functional.shapes, seed=1)
    codec = from_bundle(Bundle(config, params, "0" * 64, "float32", {}, autoencoder))
    symbols = codec.encode(gradient_image(16, 16))

    @jax.jit
    def whole(params, autoencoder):
        model = functional.bind(params)
        values = model.one_step(model.codec.decode(model.codec.dequantize(jnp.asarray(symbols[None]))))
        return images.signed_to_uint8(space.decode(autoencoder, values))

    expected = np.asarray(whole(params, autoencoder)[0])
    assert expected.shape == (16, 16, 3)
    assert np.abs(codec.decode(symbols).astype(int) - expected).max() <= 1

    with pytest.raises(UserError, match="expected the autoencoder of the model's latents"):
        from_bundle(Bundle(config, params, "0" * 64, "float32", {}))


def test_load_reads_a_model_folder(tmp_path: Path):
    save_tiny_model(tmp_path / "model")
    codec = cod_jax.load(tmp_path / "model")
    image_uint8 = gradient_image(16, 16)
    expected = tiny_codec().compress(image_uint8, layout="legacy-lite")
    assert codec.compress(image_uint8, layout="legacy-lite") == expected
    assert codec.config == tiny_bundle().config
    assert len(codec.fingerprint) == 64


def test_a_codec_keeps_no_second_copy_of_the_weights():
    bundle = dataclasses.replace(tiny_bundle())
    codec, unused = from_bundle(bundle), weakref.ref(bundle)
    del bundle
    gc.collect()
    assert unused() is None
    assert codec.config == tiny_bundle().config


def test_pictures_sampled_together_are_those_sampled_alone():
    codec = tiny_sampling_codec("pixel")
    symbols = codec.encode(np.stack([gradient_image(32, 32), gradient_image(32, 32)[::-1]]))
    for one, decoded in zip(symbols, codec.decode(symbols, seed=3), strict=True):
        assert np.abs(codec.decode(one, seed=3).astype(int) - decoded).max() <= 1
