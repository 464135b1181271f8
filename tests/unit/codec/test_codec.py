"""Pictures to bytes and back, by both engines with a tiny model of random weights."""

import struct
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFile

from cod_jax import images
from cod_jax.codec import Codec, memory
from cod_jax.coding import container, stream
from cod_jax.errors import UserError
from tests.model_fixtures import gradient_image, tiny_bundle, tiny_codec
from tests.unit.codec.pixels import levels_apart

# Compiling is what these tests take their time for, so their pictures pad to 16x16 or 32x48 where they can.
PITCH, BITS = 16, 4


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (32, 48), (17, 33)])
def test_any_size_comes_back(codec: Codec, size: tuple[int, int]):
    height, width = size
    picture = gradient_image(height, width)
    data = codec.compress(picture)
    assert data == tiny_codec().compress(picture)
    assert len(data) == 12 + -(-(-(-height // PITCH) * -(-width // PITCH) * BITS) // 8)
    decoded = codec.decompress(data)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (height, width, 3))
    assert decoded.std() > 0
    assert levels_apart(decoded, tiny_codec().decompress(data)) <= 1


def test_one_picture_and_a_batch_have_the_same_symbols_and_pixels(codec: Codec):
    picture = gradient_image(17, 33)
    batch = np.stack([picture, picture[::-1]])
    symbols = codec.encode(batch)
    assert (symbols.dtype, symbols.shape) == (np.int32, (2, 2, 3, 1))
    np.testing.assert_array_equal(codec.encode(picture), symbols[0])
    decoded = codec.decode(symbols)
    assert decoded.shape == (2, 32, 48, 3)
    assert levels_apart(codec.decode(symbols[1]), decoded[1]) <= 1
    np.testing.assert_array_equal(codec.encode(batch, level=[0, 0]), symbols)


def test_a_picture_is_padded_by_repeating_its_border(codec: Codec):
    picture = gradient_image(20, 40)
    padded = np.pad(picture, ((0, 12), (0, 8), (0, 0)), mode="edge")
    data, padded_data = codec.compress(picture), codec.compress(padded)
    assert container.read(data).payload == container.read(padded_data).payload
    np.testing.assert_array_equal(codec.decompress(data), codec.decompress(padded_data)[:20, :40])


def test_a_list_gives_a_list_of_the_same(codec: Codec):
    pictures = [gradient_image(32, 40), gradient_image(1, 1)]
    data = codec.compress(pictures)
    assert data == [codec.compress(picture) for picture in pictures]
    assert codec.compress(tuple(pictures)) == data
    for decoded, one in zip(codec.decompress(data), data, strict=True):
        np.testing.assert_array_equal(decoded, codec.decompress(one))
    assert codec.compress([]) == codec.decompress([]) == []


def test_equal_pictures_of_a_list_are_computed_together(codec: Codec, monkeypatch):
    batches: list[int] = []

    def recorded(call):
        def record(batch, *others):
            batches.append(len(batch))
            return call(batch, *others)

        return record

    # As many as fit 2 of the larger pictures.
    monkeypatch.setattr("cod_jax.codec.memory.BATCH_PIXELS", 2 * 32 * 48)
    monkeypatch.setattr(codec.engine, "encode", recorded(codec.engine.encode))
    monkeypatch.setattr(codec.engine, "decode", recorded(codec.engine.decode))
    pictures = [gradient_image(32, 48), gradient_image(1, 1), *(gradient_image(32, 48)[::-1] for _ in range(2))]
    data = codec.compress(pictures)
    # Three pictures in two batches of two, the last filled up.
    assert batches == [2, 2, 1]
    decoded = codec.decompress(data)
    assert batches == [2, 2, 1, 2, 2, 1]
    monkeypatch.undo()
    for picture, one, pixels in zip(pictures, data, decoded, strict=True):
        assert one == codec.compress(picture)
        assert levels_apart(pixels, codec.decompress(one)) <= 1


def test_pictures_are_not_computed_together_beyond_the_memory(codec: Codec, monkeypatch):
    batches: list[int] = []
    encode = codec.engine.encode
    monkeypatch.setattr(codec.engine, "encode", lambda batch, *more: batches.append(len(batch)) or encode(batch, *more))
    each = 32 * 48 * codec.engine.bytes_per_pixel(None)
    monkeypatch.setattr("cod_jax.codec.memory.available_bytes", lambda: int(4.5 * each))
    codec.compress([gradient_image(32, 48)] * 4)
    assert batches == [2, 2]


def test_what_comes_back_may_be_changed(codec: Codec):
    image = gradient_image(32, 48)  # nothing is cropped
    picture = codec.decompress(codec.compress(image))
    symbols = codec.encode(image)
    for array in (picture, symbols, codec.decode(symbols)):
        array[:1] = 0


def test_an_error_names_the_item_of_a_list(codec: Codec):
    picture = gradient_image(16, 16)
    with pytest.raises(UserError, match=r"^item \[1\]: expected a uint8 array or a Pillow image, got NoneType"):
        codec.compress([picture, None])
    with pytest.raises(UserError, match=r"^item \[0\]: expected a uint8 array or a Pillow image, got list"):
        codec.compress(picture.tolist())
    with pytest.raises(UserError, match=r"^item \[1\]: its checksum does not fit"):
        codec.decompress([codec.compress(picture), codec.compress(picture) + b"x"])
    with pytest.raises(UserError, match=r"number of steps"):
        codec.decompress([codec.compress(picture)], steps=0)


def test_a_codec_says_what_it_is(codec: Codec):
    num_params = sum(value.size for value in _leaves(tiny_bundle().params))
    summaries = (f"{num_params:,} parameters", "compiled, float32")
    known = [f"Codec({summary}, symbols of 4 bits for 16x16 pixels, fingerprint 00000000)" for summary in summaries]
    assert repr(codec) in known
    assert (codec.pitch, codec.num_levels, codec.symbols.bits) == (16, 1, 4)
    assert codec.fingerprint == tiny_bundle().fingerprint


def _leaves(tree: Any) -> list[np.ndarray]:
    return [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, dict) else [tree]


def test_pillow_and_jax_pictures_are_taken(codec: Codec):
    picture = gradient_image(16, 16)
    expected = codec.compress(picture)
    assert codec.compress(Image.fromarray(picture)) == expected
    assert codec.compress(jnp.asarray(picture)) == expected


@pytest.mark.parametrize(
    "picture", [None, 3, {}, np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), b"no picture"], ids=str
)
def test_what_is_not_a_picture_is_refused(codec: Codec, picture: Any):
    with pytest.raises(UserError, match=r"\w"):
        codec.compress(picture)


@pytest.mark.parametrize(
    "data", [b"", b"\x10\x00\x10\x00", b"\x10\x00\x10\x00\x50\x00", b"\x00\x00\x10\x00\x50", None, "text", 7]
)
@pytest.mark.parametrize("layout", ["cod", "legacy-lite"])
def test_broken_data_is_refused(codec: Codec, data: Any, layout: stream.Layout):
    with pytest.raises(UserError, match=r"\w"):
        codec.decompress(data, layout=layout)


def test_every_truncation_is_refused(codec: Codec):
    data = codec.compress(gradient_image(32, 48))
    for length in range(1, len(data)):
        with pytest.raises(UserError, match="cut off"):
            codec.decompress(data[:length])


def test_pictures_above_the_limit_are_refused_in_both_directions(limited: Codec):
    picture = np.zeros((20, 21, 3), np.uint8)
    message = r"21x20 is more than the limit of 400 pixels; .* raise it with --max-pixels \(in Python max_pixels"
    with pytest.raises(UserError, match=message):
        limited.compress(picture)
    with pytest.raises(UserError, match=message):
        limited.decompress(tiny_codec().compress(picture))
    with pytest.raises(UserError, match=message):
        limited.decompress(struct.pack("<HH", 21, 20) + b"\x10\x10", layout="legacy-lite")


def test_a_few_bytes_cannot_ask_for_all_memory(codec: Codec):
    # The payload has the right length for its header.
    payload = bytes(4096 * 38 * BITS // 8)
    with pytest.raises(UserError, match="limit"):
        codec.decompress(struct.pack("<HH", 65535, 600) + payload, layout="legacy-lite")
    with pytest.raises(UserError, match="limit"):
        codec.decompress(container.write(container.Container(600, 65535, "raw", "0" * 8, payload)))
    with pytest.raises(UserError, match="1 to 65535"):
        codec.compress(np.zeros((1, 65536, 3), np.uint8), layout="legacy-lite")


def test_published_layouts_are_written_and_read_by_name(codec: Codec):
    picture = gradient_image(17, 33)
    expected = codec.decompress(codec.compress(picture))
    lite = codec.compress(picture, layout="legacy-lite")
    assert lite[:4] == struct.pack("<HH", 33, 17)
    assert lite[4:] == container.read(codec.compress(picture)).payload
    other = codec.compress([picture], layout="legacy-cod")[0]
    assert other == lite[2:4] + lite[:2] + lite[4:]
    np.testing.assert_array_equal(codec.decompress(lite, layout="legacy-lite"), expected)
    np.testing.assert_array_equal(codec.decompress([other], layout="legacy-cod")[0], expected)
    unknown: Any = "lite"
    for call in (lambda: codec.compress(picture, layout=unknown), lambda: codec.decompress(lite, layout=unknown)):
        with pytest.raises(UserError, match="expected a layout cod, legacy-lite, legacy-cod, got 'lite'"):
            call()
    with pytest.raises(UserError, match=r"this is not a \.cod file; if it comes from a published CoD tool, name its"):
        codec.decompress(lite)


def test_published_files_keep_their_grey_border(codec: Codec):
    symbols = np.array([[3, 9, 1], [7, 2, 4]], np.int32)[..., None]
    picture = codec.decompress(struct.pack("<HH", 50, 45) + b"\x39\x17\x24", layout="legacy-lite")
    assert picture.shape == (45, 50, 3)
    assert (picture[32:] == 128).all()
    assert (picture[:, 48:] == 128).all()
    np.testing.assert_array_equal(picture[:32, :48], codec.decode(symbols))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "number of steps"),
        ({"steps": 1001}, "number of steps"),
        ({"steps": 2.0}, "number of steps"),
        ({"steps": True}, "number of steps"),
        ({"guidance": -0.5}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"guidance": "much"}, "guidance"),
        ({"sampler": "heun"}, "sampler"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": None}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused(codec: Codec, settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        codec.decompress(codec.compress(gradient_image(16, 16)), **settings)


def test_one_step_has_no_randomness_and_no_guidance(codec: Codec):
    symbols = codec.encode(gradient_image(16, 16))
    expected = codec.decode(symbols)
    choices: list[dict[str, Any]] = [{"steps": 1}, {"seed": 5}, {"guidance": 3.0}, {"sampler": "adams"}]
    for settings in choices:
        np.testing.assert_array_equal(codec.decode(symbols, **settings), expected)


def test_symbols_of_a_pillow_image_or_a_file_are_those_of_its_pixels(codec: Codec, tmp_path: Path):
    pixels = gradient_image(16, 24)
    image, file = Image.fromarray(pixels), tmp_path / "a.png"
    image.save(file)
    for source in (image, file, str(file), file.read_bytes()):
        np.testing.assert_array_equal(codec.encode(source), codec.encode(pixels))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((16, 16), np.uint8), r"expected uint8 pixels \[height, width, 3\] or \[batch, .*, got uint8 \[16, 1"),
        (np.zeros((1, 1, 16, 16, 3), np.uint8), "expected uint8 pixels"),
        (np.zeros((16, 16, 4), np.uint8), "expected uint8 pixels"),
        (np.zeros((16, 16, 3)), r"got float64 \[16, 16, 3\]"),
        (np.zeros((0, 16, 16, 3), np.uint8), "expected at least one pixel"),
    ],
)
def test_pixels_of_another_form_are_refused(codec: Codec, array: np.ndarray, message: str):
    with pytest.raises(UserError, match=message):
        codec.encode(array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((1, 2), np.int32),
            r"expected integer symbols \[rows, columns, 1\] or .*, got int32 \[1, 2\]",
        ),
        (np.zeros((1, 2, 3), np.int32), r"got int32 \[1, 2, 3\]"),
        (np.zeros((1, 0, 1), np.int32), r"got int32 \[1, 0, 1\]"),
        (np.zeros((1, 1, 1)), r"got float64 \[1, 1, 1\]"),
        (np.full((1, 1, 1), 99, np.int32), "expected symbols from 0 to 15, got 99 to 99"),
        (np.array([[[3], [-1]]]), "expected symbols from 0 to 15, got -1 to 3"),
    ],
)
def test_symbols_that_do_not_exist_are_refused(codec: Codec, array: np.ndarray, message: str):
    with pytest.raises(UserError, match=message):
        codec.decode(array)


def test_a_model_of_one_quality_has_one_level(codec: Codec):
    picture = gradient_image(16, 16)
    assert codec.compress(picture, quality=1) == codec.compress(picture)
    with pytest.raises(UserError, match="this model has one quality level only, got quality 2; leave the quality out"):
        codec.compress(picture, quality=2)
    for level in (1, -1):
        with pytest.raises(UserError, match=f"level must be between 0 and 0 for this model, got {level}"):
            codec.encode(picture, level=level)
    with pytest.raises(UserError, match=r"expected level to be a whole number, or one for each of 1, got \[0, 0\]"):
        codec.encode(picture[None], level=[0, 0])


def test_an_error_while_a_list_is_computed_says_which_item(codec: Codec, monkeypatch):
    small, large = gradient_image(16, 16), gradient_image(32, 48)
    encode = codec.engine.encode

    def out_of_range(images_uint8, levels):
        symbols = encode(images_uint8, levels)
        return symbols + 10**6 if images_uint8.shape[1] == 32 else symbols

    monkeypatch.setattr(codec.engine, "encode", out_of_range)
    with pytest.raises(UserError, match=r"^item \[1\]: "):
        codec.compress([small, large, small])
    with pytest.raises(UserError, match=r"^(?!item)"):
        codec.compress(large)

    def refuse(images_uint8, levels):
        raise UserError("there is no program for this size")

    monkeypatch.setattr(codec.engine, "encode", refuse)
    with pytest.raises(UserError, match=r"^item \[0\], \[1\]: there is no program"):
        codec.compress([small, small])
    with pytest.raises(UserError, match=r"^there is no program"):
        codec.compress(small)
    data = tiny_codec().compress(small) if codec is not tiny_codec() else None
    monkeypatch.setattr(codec.engine, "decode", lambda *_: refuse(None, None))
    if data is not None:
        with pytest.raises(UserError, match=r"^item \[0\], \[1\]: there is no program"):
            codec.decompress([data, data])


def test_the_limit_is_compared_with_the_header_of_a_picture(limited: Codec, monkeypatch: pytest.MonkeyPatch):
    encoded = images.encode(np.zeros((20, 21, 3), np.uint8), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the pixels were decoded"))
    with pytest.raises(UserError, match="21x20 is more than the limit of 400 pixels"):
        limited.compress(encoded)


def test_pictures_that_need_more_memory_than_there_is_are_refused(codec: Codec, monkeypatch: pytest.MonkeyPatch):
    data = codec.compress(gradient_image(32, 48))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(UserError, match=r"^image: encoding 48x32 pixels takes about .* GB .* make the picture smaller"):
        codec.compress(gradient_image(32, 48))
    with pytest.raises(UserError, match=r"^decoding 48x32 pixels takes about .* GB"):
        codec.decompress(data)
