"""Pictures to bytes and back with a tiny model of random weights."""

import dataclasses
import functools
import gc
import shutil
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cod_jax
from cod_jax import images
from cod_jax.codec import Codec
from cod_jax.coding import container, pictures, prior_fit, stream
from cod_jax.coding.factorized import FactorizedPrior
from cod_jax.commands.info import model_lines
from cod_jax.commands.main import main
from cod_jax.diffusion.noise import seed_words, seeded_noise
from cod_jax.diffusion.samplers import sample
from cod_jax.features.sd_vae import SDVAEConfig
from cod_jax.model_folder import prior_file
from cod_jax.model_folder.bundle import Bundle, save_bundle
from cod_jax.model_folder.describe import describe_model
from cod_jax.models import FactorizedConfig, build_model
from cod_jax.models.space import Space
from tests.model_fixtures import (
    gradient_image,
    numpy_params,
    save_tiny_model,
    tiny_bundle,
    tiny_codec,
    tiny_latent_config,
    tiny_model_config,
    tiny_sampling_codec,
)

# Compiling is what these tests take their time for, so their pictures pad to 16x16 or 32x48 where they can.
PITCH, BITS = 16, 4


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (32, 48), (17, 33)])
def test_any_size_comes_back(size: tuple[int, int]):
    height, width = size
    data = tiny_codec().compress(gradient_image(height, width))
    assert len(data) == 12 + -(-(-(-height // PITCH) * -(-width // PITCH) * BITS) // 8)
    decoded = tiny_codec().decompress(data)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (height, width, 3)
    assert decoded.std() > 0


def test_the_codec_is_what_the_model_does():
    image_uint8 = gradient_image(32, 48)
    bundle = tiny_bundle()
    functional = build_model(bundle.config)

    @jax.jit
    def whole(params, image01):
        model = functional.bind(params)
        indices = model.codec.quantize(model.codec.encode(image01)).indices
        return indices, images.signed_to_uint8(model.one_step(model.codec.decode(model.codec.dequantize(indices))))

    indices, decoded = whole(bundle.params, image_uint8[None] / np.float32(255))
    codec = tiny_codec()
    data = codec.compress(image_uint8)
    picture = stream.decode_picture(data, coder=bundle.symbol_coder(), max_pixels=2**20)
    np.testing.assert_array_equal(picture.indices, indices[0])
    assert len(np.unique(picture.indices)) > 1
    # Compiled in other pieces, float32 may round a value to the neighbouring level.
    assert np.abs(codec.decompress(data).astype(int) - np.asarray(decoded[0], int)).max() <= 1


def test_a_picture_is_padded_by_repeating_its_border():
    image_uint8 = gradient_image(20, 40)
    padded = images.pad_to_multiple(image_uint8, PITCH)
    codec = tiny_codec()
    data, padded_data = codec.compress(image_uint8), codec.compress(padded)
    assert container.read(data).payload == container.read(padded_data).payload
    np.testing.assert_array_equal(codec.decompress(data), codec.decompress(padded_data)[:20, :40])


def test_symbols_finer_than_the_patch_grid():
    # At pitch 8 the model takes multiples of 16 pixels, so an odd number of rows or columns of symbols is filled up.
    codec = tiny_codec(pitch=8)
    data = codec.compress(gradient_image(24, 15))
    assert len(data) == 12 + 3
    assert codec.decompress(data).shape == (24, 15, 3)
    indices = codec.encode(gradient_image(24, 15))
    assert indices.shape == (3, 2)
    filled = np.concatenate([indices, indices[-1:]])
    np.testing.assert_array_equal(codec.decode(indices), codec.decode(filled))


def test_the_model_chooses_the_attention():
    image_uint8 = gradient_image(16, 33 * 16)
    everywhere = tiny_codec(attention="global").encode(image_uint8)
    in_windows = tiny_codec(attention="window_published").encode(image_uint8)
    assert not np.array_equal(everywhere, in_windows)


def test_published_files_keep_their_grey_border():
    indices = np.array([[3, 9, 1], [7, 2, 4]], np.int32)
    picture = tiny_codec().decompress(struct.pack("<HH", 50, 45) + b"\x39\x17\x24", layout="legacy-lite")
    assert picture.shape == (45, 50, 3)
    assert (picture[32:] == 128).all()
    assert (picture[:, 48:] == 128).all()
    np.testing.assert_array_equal(picture[:32, :48], tiny_codec().decode(indices))


def test_a_list_gives_a_list_of_the_same():
    codec = tiny_codec()
    pictures = [gradient_image(32, 40), gradient_image(1, 1)]
    data = codec.compress(pictures)
    assert data == [codec.compress(picture) for picture in pictures]
    assert codec.compress(tuple(pictures)) == data
    for decoded, one in zip(codec.decompress(data), data, strict=True):
        np.testing.assert_array_equal(decoded, codec.decompress(one))
    assert codec.compress([]) == []
    assert codec.decompress([]) == []


def test_an_error_names_the_item_of_a_list():
    codec, image_uint8 = tiny_codec(), gradient_image(16, 16)
    with pytest.raises(ValueError, match=r"^item \[1\]: NoneType is no picture; give"):
        codec.compress([image_uint8, None])
    with pytest.raises(ValueError, match=r"^item \[0\]: list is no picture; give"):
        codec.compress(image_uint8.tolist())
    with pytest.raises(ValueError, match=r"^item \[1\]: its checksum does not fit"):
        codec.decompress([codec.compress(image_uint8), codec.compress(image_uint8) + b"x"])
    with pytest.raises(ValueError, match=r"^the number of steps is 0"):
        codec.decompress([codec.compress(image_uint8)], steps=0)


def test_a_codec_says_what_it_is():
    num_params = sum(value.size for value in jax.tree.leaves(tiny_bundle().params))
    assert repr(tiny_codec()) == f"Codec({num_params:,} parameters, 4 bits for 16x16 pixels, fingerprint 00000000)"


def test_pillow_and_jax_pictures_are_taken():
    image_uint8 = gradient_image(16, 16)
    expected = tiny_codec().compress(image_uint8)
    assert tiny_codec().compress(Image.fromarray(image_uint8)) == expected
    assert tiny_codec().compress(jnp.asarray(image_uint8)) == expected


@pytest.mark.parametrize(
    "picture",
    [
        None,
        3,
        0.5,
        {},
        gradient_image(4, 4).tolist(),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        b"no picture",
    ],
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(ValueError, match=r"\w"):
        tiny_codec().compress(picture)


def test_too_long_a_side_is_refused_before_any_work():
    with pytest.raises(ValueError, match="1 to 65535"):
        tiny_codec().compress(np.zeros((1, 65536, 3), np.uint8), layout="legacy-lite")


@pytest.mark.parametrize(
    "data", [b"", b"\x10\x00\x10\x00", b"\x10\x00\x10\x00\x50\x00", b"\x00\x00\x10\x00\x50", None, "text", 7]
)
@pytest.mark.parametrize("layout", ["cod", "legacy-lite"])
def test_broken_data_is_refused(data, layout: stream.Layout):
    with pytest.raises(ValueError, match=r"\w"):
        tiny_codec().decompress(data, layout=layout)


def test_every_truncation_is_refused():
    data = tiny_codec().compress(gradient_image(32, 48))
    for length in range(1, len(data)):
        with pytest.raises(ValueError, match="cut off"):
            tiny_codec().decompress(data[:length])


def test_pictures_above_the_limit_are_refused_in_both_directions():
    codec = Codec(tiny_bundle(), max_pixels=100)
    message = r"11x10 is more than the limit of 100 pixels; .* raise it with --max-pixels \(in Python max_pixels"
    with pytest.raises(ValueError, match=message):
        codec.compress(np.zeros((10, 11, 3), np.uint8))
    with pytest.raises(ValueError, match=message):
        codec.decompress(tiny_codec().compress(np.zeros((10, 11, 3), np.uint8)))
    with pytest.raises(ValueError, match=message):
        codec.decompress(struct.pack("<HH", 11, 10) + b"\x10", layout="legacy-lite")


def test_a_few_bytes_cannot_ask_for_all_memory():
    # The payload has the right length for its header.
    payload = bytes(4096 * 38 * BITS // 8)
    with pytest.raises(ValueError, match="limit"):
        tiny_codec().decompress(struct.pack("<HH", 65535, 600) + payload, layout="legacy-lite")
    with pytest.raises(ValueError, match="limit"):
        tiny_codec().decompress(container.write(container.Container(600, 65535, "raw", "0" * 8, payload)))


def test_published_layouts_are_written_and_read_by_name():
    image_uint8 = gradient_image(17, 33)
    expected = tiny_codec().decompress(tiny_codec().compress(image_uint8))
    lite = tiny_codec().compress(image_uint8, layout="legacy-lite")
    assert lite[:4] == struct.pack("<HH", 33, 17)
    assert lite[4:] == container.read(tiny_codec().compress(image_uint8)).payload
    other = tiny_codec().compress([image_uint8], layout="legacy-cod")[0]
    assert other == lite[2:4] + lite[:2] + lite[4:]
    np.testing.assert_array_equal(tiny_codec().decompress(lite, layout="legacy-lite"), expected)
    np.testing.assert_array_equal(tiny_codec().decompress([other], layout="legacy-cod")[0], expected)
    unknown: Any = "lite"
    with pytest.raises(ValueError, match="no layout 'lite'; choose cod, legacy-lite, legacy-cod"):
        tiny_codec().compress(image_uint8, layout=unknown)
    with pytest.raises(ValueError, match=r"this is no \.cod file; if it comes from a published CoD tool, name its"):
        tiny_codec().decompress(lite)


def test_a_file_of_another_model_is_refused_and_both_are_named(tmp_path: Path, monkeypatch):
    save_tiny_model(tmp_path / "models" / "known")
    known = cod_jax.load(tmp_path / "models" / "known")
    data = known.compress(gradient_image(16, 16))
    message = f"made with the model of fingerprint {known.fingerprint[:8]}, and this one has 00000000; decompress with"
    with pytest.raises(ValueError, match=f"{message} the model folder, its prior included, that compressed$"):
        tiny_codec().decompress(data)
    monkeypatch.setenv("COD_JAX_MODELS", str(tmp_path / "models"))
    with pytest.raises(ValueError, match=f"{message} .*, which is .*known$"):
        tiny_codec().decompress([data])


def test_a_prior_makes_smaller_files_of_the_same_pictures():
    flat = np.full((90, 70, 3), 90, np.uint8)
    bundle = tiny_bundle()
    codebook = bundle.params["codec"]["bottleneck"]["codebook"]
    prior = prior_fit.fit_prior([tiny_codec().encode(flat)], codebook)
    codec = Codec(dataclasses.replace(bundle, prior=prior))
    data, raw = codec.compress(flat), tiny_codec().compress(flat)
    assert container.read(data).mode == "context"
    assert len(data) < len(raw)
    assert container.read(data).model == codec.fingerprint[:8] != tiny_codec().fingerprint[:8]
    np.testing.assert_array_equal(codec.decompress(data), tiny_codec().decompress(raw))
    np.testing.assert_array_equal(codec.decompress(raw), tiny_codec().decompress(raw))
    with pytest.raises(ValueError, match="and this one has 00000000"):
        tiny_codec().decompress(data)


def sampled(kind: str, indices: np.ndarray, *, seed: int, num_steps: int, guidance_scale: float) -> np.ndarray:
    """Adams steps from the seed's noise, without the codec's program; values before they become 8 bits."""
    codec = tiny_sampling_codec(kind)
    config = codec.config
    functional, space = build_model(config), Space(config)
    image_shape = (1, indices.shape[0] * PITCH, indices.shape[1] * PITCH, 3)

    @jax.jit
    def whole(params):
        model = functional.bind(params)
        null = model.codec.quantize(model.codec.encode(jnp.full(image_shape, -1.0))).values
        values = sample(
            model.velocity,
            seeded_noise(seed_words(seed), config.values_shape(image_shape)),
            model.codec.decode(model.codec.dequantize(jnp.asarray(indices[None]))),
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
    indices = codec.encode(gradient_image(*size))
    by_default = codec.decompress(data)
    assert by_default.shape == (*size, 3)
    expected = sampled(kind, indices, seed=0, num_steps=3, guidance_scale=2.0)[: size[0], : size[1]]
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
    indices = codec.encode(gradient_image(32, 32))
    guided = codec.decode(indices)
    before = num_traced()
    stronger = codec.decode(indices, guidance=4.5, seed=3)
    assert num_traced() == before
    assert not np.array_equal(stronger, guided)
    weaker = codec.decode(indices, guidance=1.0)
    assert num_traced() == before + 1
    assert not np.array_equal(weaker, guided)


def test_one_step_has_no_randomness_and_no_guidance(num_traced):
    codec = tiny_codec()
    indices = codec.encode(gradient_image(16, 16))
    expected = codec.decode(indices)
    before = num_traced()
    choices: list[dict[str, Any]] = [{"steps": 1}, {"seed": 5}, {"guidance": 3.0}, {"sampler": "adams"}]
    for settings in choices:
        np.testing.assert_array_equal(codec.decode(indices, **settings), expected)
    assert num_traced() == before
    assert not np.array_equal(codec.decode(indices, steps=2), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "number of steps is 0; it must be a whole number, 1 to 1000"),
        ({"steps": 1001}, "number of steps is 1001"),
        ({"steps": 2.0}, r"number of steps is 2\.0"),
        ({"steps": True}, "number of steps is True"),
        ({"guidance": -0.5}, r"guidance is -0\.5; it must be a number, 0 to 1000"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"guidance": "much"}, "guidance is 'much'"),
        ({"sampler": "heun"}, "sampler is 'heun'; it must be euler or adams"),
        ({"seed": -1}, r"seed is -1; it must be a whole number, 0 to 2\^63 - 1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"seed": 0.5}, r"seed is 0\.5"),
        ({"seed": None}, "seed is None"),
        ({"layout": "lite"}, "no layout 'lite'; choose cod, legacy-lite, legacy-cod"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message: str):
    data = tiny_codec().compress(gradient_image(16, 16))
    with pytest.raises(ValueError, match=message):
        tiny_codec().decompress(data, **settings)


def test_latents_become_pixels_by_the_autoencoder_of_the_bundle(monkeypatch):
    vae = SDVAEConfig(widths=(4, 4, 4, 4), encoder_blocks=1, num_groups=2)
    monkeypatch.setattr("cod_jax.models.space.SDVAEConfig", lambda: vae)
    config = tiny_latent_config("sd_vae")
    functional, space = build_model(config), Space(config)
    assert space.functional is not None
    params, autoencoder = numpy_params(functional.shapes), numpy_params(space.functional.shapes, seed=1)
    codec = Codec(Bundle(config, params, "0" * 64, "float32", {}, autoencoder))
    indices = codec.encode(gradient_image(16, 16))

    @jax.jit
    def whole(params, autoencoder):
        model = functional.bind(params)
        values = model.one_step(model.codec.decode(model.codec.dequantize(jnp.asarray(indices[None]))))
        return images.signed_to_uint8(space.decode(autoencoder, values))

    expected = np.asarray(whole(params, autoencoder)[0])
    assert expected.shape == (16, 16, 3)
    assert np.abs(codec.decode(indices).astype(int) - expected).max() <= 1

    with pytest.raises(ValueError, match="latents need an autoencoder, and the bundle has none"):
        Codec(Bundle(config, params, "0" * 64, "float32", {}))


def test_load_reads_a_model_folder(tmp_path: Path):
    save_tiny_model(tmp_path / "model")
    codec = cod_jax.load(tmp_path / "model")
    image_uint8 = gradient_image(16, 16)
    expected = tiny_codec().compress(image_uint8, layout="legacy-lite")
    assert codec.compress(image_uint8, layout="legacy-lite") == expected
    assert codec.config == tiny_codec().config
    assert len(codec.fingerprint) == 64


@functools.cache
def factorized_codec(folder: Path) -> Codec:
    """Return the codec of a model without a codebook, with two quality levels, from its folder."""
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=2))
    params = numpy_params(build_model(config).shapes)
    # Tables around the latents, which are about one; a gain of 1 and one of 4.
    params["codec"]["bottleneck"]["log_gains"][:] = np.log([[1.0], [4.0]])
    fingerprint = save_bundle(folder, config, params, training={})
    codec = cod_jax.load(folder)
    assert codec.fingerprint == fingerprint
    return codec


def test_a_factorized_bottleneck_is_coded_by_its_tables(tmp_path_factory):
    codec = factorized_codec(tmp_path_factory.getbasetemp() / "factorized")
    picture = gradient_image(20, 40)
    best = codec.compress(picture)
    assert codec.compress(picture, quality=2) == best
    small = codec.compress(picture, quality=1)
    assert codec.num_levels == 2
    file = container.read(small)
    assert (file.mode, file.payload[0], container.read(best).payload[0]) == ("factorized", 0, 1)
    assert len(small) < len(best)
    for level, data in enumerate((small, best)):
        indices = codec.encode(picture, level=level)
        assert indices.shape == (2, 3, 8)
        decoded = codec.decompress(data)
        assert decoded.shape == (20, 40, 3)
        np.testing.assert_array_equal(decoded, codec.decode(indices, level=level)[:20, :40])
    assert not np.array_equal(codec.encode(picture, level=0), codec.encode(picture))
    assert "8 numbers for 16x16 pixels" in repr(codec)


def test_a_folder_of_a_factorized_model_holds_its_tables(tmp_path_factory, tmp_path: Path, capsys):
    folder = tmp_path_factory.getbasetemp() / "factorized"
    factorized_codec(folder)
    lines = dict(model_lines(folder, describe_model(folder)))
    assert (lines["symbols"], lines["prior"]) == ("8 numbers for 16x16 pixels, 2 quality levels", "factorized")
    assert main(["fit-prior", "--model", str(folder), "--images", str(tmp_path)]) == 2
    assert "factorized has no codebook, and its files need no other prior than" in capsys.readouterr().err
    copy = shutil.copytree(folder, tmp_path / "copy")
    prior = prior_file.load_prior(copy, 0)
    assert isinstance(prior, FactorizedPrior)
    prior_file.save_prior(copy, FactorizedPrior(prior.levels[:1]))
    with pytest.raises(ValueError, match=r"tables of 1 levels and 8 channels, but the model has 2 and 8; copy or"):
        cod_jax.load(copy)
    (copy / prior_file.PRIOR_FILE).unlink()
    with pytest.raises(ValueError, match=r"prior\.safetensors is missing, which codes the symbols; copy or export"):
        cod_jax.load(copy)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda codec: codec.encode(gradient_image(16, 16)[None]), r"give uint8 \[height, width, 3\]"),
        (lambda codec: codec.encode(np.zeros((16, 16, 3))), r"\(16, 16, 3\) and dtype float64 cannot be encoded; give"),
        (
            lambda codec: codec.encode(gradient_image(16, 16), level=1),
            "the level is 1, and this model has the levels 0",
        ),
        (lambda codec: codec.decode(np.zeros((1, 2, 3), np.int32)), r"\(1, 2, 3\) are no \[rows, columns\]"),
        (
            lambda codec: codec.decode(np.full((1, 1), 99, np.int32)),
            "the symbols are 99 to 99; those of this model are 0 to 15",
        ),
        (lambda codec: codec.decode(np.array([[3, -1]])), "the symbols are -1 to 3; those of this model are 0 to 15"),
        (lambda codec: codec.decode(np.zeros((1, 1))), "symbols of dtype float64 are no integers"),
        (lambda codec: codec.decode(np.zeros((1, 1), np.int32), level=-1), "the level is -1, and this model has the"),
    ],
)
def test_symbols_and_levels_that_do_not_exist_are_refused(call: Callable[[Codec], Any], message: str):
    with pytest.raises(ValueError, match=message):
        call(tiny_codec())


def test_levels_and_symbols_that_a_factorized_model_does_not_have_are_refused(tmp_path_factory):
    codec = factorized_codec(tmp_path_factory.getbasetemp() / "factorized")
    picture, symbols = gradient_image(16, 16), np.zeros((1, 1, 8), np.int32)
    for level in (7, 2, -1):
        with pytest.raises(ValueError, match=f"the level is {level}, and this model has the levels 0 to 1"):
            codec.encode(picture, level=level)
        with pytest.raises(ValueError, match=f"the level is {level}, and this model has the levels 0 to 1"):
            codec.decode(symbols, level=level)
    with pytest.raises(ValueError, match=r"the level is True; give a whole number$"):
        codec.encode(picture, level=True)
    for level in (1.0, "1", [0], 2**70):
        with pytest.raises(ValueError, match=r"the level is .*; give a whole number$"):
            pictures.checked_levels(level, coder=codec._coder)
    with pytest.raises(ValueError, match=r"symbols of shape \(1, 1, 7\) are no \[rows, columns, 8\]"):
        codec.decode(symbols[..., 1:])
    with pytest.raises(ValueError, match=r"symbols of shape \(1, 1\) are no \[rows, columns, 8\]"):
        codec.decode(symbols[..., 0])
    with pytest.raises(ValueError, match="the symbols are 32768 to 32768; those of this model are -32767 to 32767"):
        codec.decode(symbols + 2**15)


def test_a_codec_keeps_no_second_copy_of_the_weights():
    bundle = dataclasses.replace(tiny_bundle())
    codec, unused = Codec(bundle), weakref.ref(bundle)
    del bundle
    gc.collect()
    assert unused() is None
    assert codec.config == tiny_bundle().config


def test_a_quality_or_layout_that_the_model_does_not_have_is_refused(tmp_path_factory):
    codec = factorized_codec(tmp_path_factory.getbasetemp() / "factorized")
    picture = gradient_image(16, 16)
    unusable: list[Any] = [0, 3, 1.0, True]
    for quality in unusable:
        with pytest.raises(ValueError, match=f"the quality is {quality}, and this model has the qualities 1 to 2"):
            codec.compress(picture, quality=quality)
    with pytest.raises(ValueError, match="the quality is 2, and this model has one quality only; leave it out"):
        tiny_codec().compress(picture, quality=2)
    assert tiny_codec().compress(picture, quality=1) == tiny_codec().compress(picture)
    published: tuple[stream.Layout, ...] = ("legacy-lite", "legacy-cod")
    for layout in published:
        with pytest.raises(ValueError, match=f"no codebook, and {layout} holds the symbols of one"):
            codec.compress(picture, layout=layout)
        with pytest.raises(ValueError, match=f"no codebook, and {layout} holds the symbols of one"):
            codec.decompress(b"\x10\0\x10\0\0", layout=layout)
