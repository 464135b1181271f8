"""Pictures to bytes and back with a tiny model of random weights."""

import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cod_jax
from cod_jax import images
from cod_jax.codec import Codec
from cod_jax.coding import legacy
from cod_jax.models import build_model
from tests.model_fixtures import gradient_image, save_tiny_model, tiny_bundle, tiny_codec

# Compiling is what these tests take their time for, so their pictures pad to 16x16 or 32x48 where they can.
PITCH, BITS = 16, 4


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (32, 48), (17, 33)])
def test_any_size_comes_back(size: tuple[int, int]):
    height, width = size
    data = tiny_codec().compress(gradient_image(height, width))
    assert len(data) == 4 + -(-(-(-height // PITCH) * -(-width // PITCH) * BITS) // 8)
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
    picture = legacy.decode_legacy_lite(data, pitch=PITCH, bits=BITS, max_pixels=2**20)
    np.testing.assert_array_equal(picture.indices, indices[0])
    assert len(np.unique(picture.indices)) > 1
    # Compiled in other pieces, float32 may round a value to the neighbouring level.
    assert np.abs(codec.decompress(data).astype(int) - np.asarray(decoded[0], int)).max() <= 1


def test_a_picture_is_padded_by_repeating_its_border():
    image_uint8 = gradient_image(20, 40)
    padded = images.pad_to_multiple(image_uint8, PITCH)
    codec = tiny_codec()
    data, padded_data = codec.compress(image_uint8), codec.compress(padded)
    assert data[4:] == padded_data[4:]
    np.testing.assert_array_equal(codec.decompress(data), codec.decompress(padded_data)[:20, :40])


def test_symbols_finer_than_the_patch_grid():
    # At pitch 8 the model takes multiples of 16 pixels, so an odd number of rows or columns of symbols is filled up.
    codec = tiny_codec(pitch=8)
    data = codec.compress(gradient_image(24, 15))
    assert len(data) == 4 + 3
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
    picture = tiny_codec().decompress(struct.pack("<HH", 50, 45) + b"\x39\x17\x24")
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
        tiny_codec().compress(np.zeros((1, 65536, 3), np.uint8))


@pytest.mark.parametrize(
    "data", [b"", b"\x10\x00\x10\x00", b"\x10\x00\x10\x00\x50\x00", b"\x00\x00\x10\x00\x50", None, "text", 7]
)
def test_broken_data_is_refused(data):
    with pytest.raises(ValueError, match=r"\w"):
        tiny_codec().decompress(data)


def test_every_truncation_is_refused():
    data = tiny_codec().compress(gradient_image(32, 48))
    for length in range(len(data)):
        with pytest.raises(ValueError, match="cut off"):
            tiny_codec().decompress(data[:length])


def test_pictures_above_the_limit_are_refused_in_both_directions():
    codec = Codec(tiny_bundle(), max_pixels=100)
    with pytest.raises(ValueError, match="11x10 is more than the limit of 100 pixels"):
        codec.compress(np.zeros((10, 11, 3), np.uint8))
    with pytest.raises(ValueError, match="11x10 is more than the limit of 100 pixels"):
        codec.decompress(struct.pack("<HH", 11, 10) + b"\x10")


def test_a_few_bytes_cannot_ask_for_all_memory():
    # The payload has the right length for its header.
    data = struct.pack("<HH", 65535, 600) + bytes(4096 * 38 * BITS // 8)
    with pytest.raises(ValueError, match="limit"):
        tiny_codec().decompress(data)


def test_load_reads_a_model_folder(tmp_path: Path):
    save_tiny_model(tmp_path / "model")
    codec = cod_jax.load(tmp_path / "model")
    image_uint8 = gradient_image(16, 16)
    assert codec.compress(image_uint8) == tiny_codec().compress(image_uint8)
    assert codec.config == tiny_codec().config
    assert len(codec.fingerprint) == 64
