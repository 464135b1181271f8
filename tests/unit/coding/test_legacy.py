"""The published layouts."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from cod_jax.coding import legacy
from cod_jax.coding.other_formats import explain_picture
from cod_jax.coding.sizes import ceil_grid
from cod_jax.models import ConditionCodecConfig
from tests.parity.cases import PORTABLE

MAX_PIXELS = 2**20


def _encode(height: int, width: int, *, pitch: int, bits: int) -> tuple[np.ndarray, bytes]:
    grid = ceil_grid(height=height, width=width, pitch=pitch)
    symbols = np.random.default_rng(height * width).integers(0, 2**bits, (*grid, 1))
    return symbols, legacy.encode_legacy(symbols, height=height, width=width, pitch=pitch, bits=bits)


@pytest.mark.parametrize(
    ("case", "pitch", "bits", "size", "covers_all"),
    [
        ("lite_ds16_b8_64x48", 16, 8, (64, 48), True),
        ("lite_ds32_b4_64x128", 32, 4, (64, 128), True),
        ("lite_ds32_b4_70x100_not_multiple", 32, 4, (70, 100), False),
    ],
)
def test_reads_published_files(case: str, pitch: int, bits: int, size: tuple[int, int], covers_all: bool):
    with np.load(PORTABLE / f"cod_file_{case}.npz") as stored:
        data, symbols = stored["cod_file"].tobytes(), stored["indices"][..., None]
    picture = legacy.decode_legacy(data, pitch=pitch, bits=bits, max_pixels=MAX_PIXELS)
    assert (picture.height, picture.width) == size
    assert picture.covers_all == covers_all
    np.testing.assert_array_equal(picture.symbols, symbols)
    if covers_all:
        height, width = size
        assert legacy.encode_legacy(symbols, height=height, width=width, pitch=pitch, bits=bits) == data


@pytest.mark.parametrize(("case", "size"), [("64x64", (64, 64)), ("64x96_swapped", (64, 96))])
def test_reads_files_of_the_published_cod_tool(case: str, size: tuple[int, int]):
    with np.load(PORTABLE / f"cod_file_cod_ds32_b4_{case}.npz") as stored:
        data, symbols = stored["cod_file"].tobytes(), stored["indices"][..., None]
    picture = legacy.decode_legacy(data, pitch=32, bits=4, max_pixels=MAX_PIXELS, layout="legacy-cod")
    assert (picture.height, picture.width, picture.covers_all) == (*size, True)
    np.testing.assert_array_equal(picture.symbols, symbols)
    height, width = size
    written = legacy.encode_legacy(symbols, height=height, width=width, pitch=32, bits=4, layout="legacy-cod")
    assert written == data
    header = legacy.decode_legacy_header(data, "legacy-cod")
    assert (header.height, header.width, header.payload_bytes) == (*size, len(data) - 4)


def test_the_layouts_differ_in_the_order_of_the_sides():
    symbols = np.arange(6).reshape(2, 3, 1)
    lite = legacy.encode_legacy(symbols, height=30, width=40, pitch=16, bits=4)
    cod = legacy.encode_legacy(symbols, height=30, width=40, pitch=16, bits=4, layout="legacy-cod")
    assert lite[:4] == struct.pack("<HH", 40, 30)
    assert cod == struct.pack("<HH", 30, 40) + lite[4:]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (32, 64), (33, 63), (31, 65), (65535, 1), (1, 65535)])
@pytest.mark.parametrize(("pitch", "bits"), [(32, 4), (16, 8), (4, 8), (128, 3)])
def test_decoding_undoes_encoding(size: tuple[int, int], pitch: int, bits: int):
    height, width = size
    symbols, data = _encode(height, width, pitch=pitch, bits=bits)
    assert data[:4] == struct.pack("<HH", width, height)
    picture = legacy.decode_legacy(data, pitch=pitch, bits=bits, max_pixels=4 * MAX_PIXELS)
    assert (picture.height, picture.width, picture.covers_all) == (height, width, True)
    np.testing.assert_array_equal(picture.symbols, symbols)


def test_the_ceil_grid_is_meant_where_both_grids_take_the_same_bytes():
    # At pitch 32 a 33x32 picture has two symbols, of which the published tool keeps one; either is one byte.
    data = struct.pack("<HH", 32, 33) + b"\x70"
    picture = legacy.decode_legacy(data, pitch=32, bits=4, max_pixels=MAX_PIXELS)
    assert picture.covers_all
    np.testing.assert_array_equal(picture.symbols, [[[7]], [[0]]])


@pytest.mark.parametrize("length", range(26))
def test_cut_off_files_are_refused(length: int):
    _, data = _encode(70, 100, pitch=16, bits=4)
    assert len(data) == 22
    lengths_that_fit = {22, 4 + 12}
    if length in lengths_that_fit:
        return
    with pytest.raises(ValueError, match="cut off"):
        legacy.decode_legacy((data + bytes(8))[:length], pitch=16, bits=4, max_pixels=MAX_PIXELS)


def test_another_model_is_named_as_a_reason():
    _, data = _encode(64, 64, pitch=16, bits=4)
    with pytest.raises(ValueError, match=r"64x64 pixels take 16 bytes .* but there are 8; .* another model"):
        legacy.decode_legacy(data, pitch=16, bits=8, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_pictures_are_called_pictures(image_format: str):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, image_format)
    name = "WebP" if image_format == "WEBP" else image_format
    message = f"this is a {name} picture, not a .cod file; compress it first"
    data = buffer.getvalue()
    with pytest.raises(ValueError, match=message):
        legacy.decode_legacy(data, pitch=16, bits=4, max_pixels=MAX_PIXELS)
    with pytest.raises(ValueError, match=message):
        legacy.check_header(data, legacy.decode_legacy_header(data))


def test_a_file_that_begins_like_a_picture_is_read():
    # In the header the sides of this picture look like "BM" and, before two bytes of symbols, a size.
    symbols, data = _encode(30, 0x4D42, pitch=128, bits=4)
    assert explain_picture(data)
    picture = legacy.decode_legacy(data, pitch=128, bits=4, max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(picture.symbols, symbols)
    legacy.check_header(data, legacy.decode_legacy_header(data))


@pytest.mark.parametrize(("pitch", "bits"), [(4, 16), (16, 4), (128, 1)])
def test_a_header_fits_what_some_model_writes(pitch: int, bits: int):
    _, data = _encode(70, 600, pitch=pitch, bits=bits)
    legacy.check_header(data, legacy.decode_legacy_header(data))


def test_sizes_that_no_model_stores_in_so_many_bytes_are_refused():
    for data in (b"\xff\xff\xff\xff" + bytes(16), struct.pack("<HH", 30, 20) + bytes(2000)):
        with pytest.raises(ValueError, match=f"which no model stores in {len(data)} bytes; this is a damaged .cod"):
            legacy.check_header(data, legacy.decode_legacy_header(data))


def test_the_pitches_are_those_of_models():
    def exists(pitch: int, input_stride: int) -> bool:
        try:
            ConditionCodecConfig(pitch=pitch, input_stride=input_stride)
        except ValueError:
            return False
        return True

    assert tuple(pitch for pitch in range(1, 300) if exists(pitch, 1) or exists(pitch, 2)) == legacy.PITCHES


@pytest.mark.parametrize("header", [(0, 5), (5, 0), (0, 0)])
def test_empty_pictures_are_refused(header: tuple[int, int]):
    with pytest.raises(ValueError, match="damaged"):
        legacy.decode_legacy(struct.pack("<HH", *header) + b"\0", pitch=16, bits=4, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("size", [(65536, 1), (1, 65536), (0, 1), (1, 0)])
def test_sides_that_the_header_cannot_hold_are_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match="1 to 65535"):
        legacy.encode_legacy(np.zeros((1, 1, 1), np.int32), height=size[0], width=size[1], pitch=2**16, bits=4)


def test_the_grid_must_fit_the_picture():
    with pytest.raises(ValueError, match=r"expected symbols \(2, 3, 1\)"):
        legacy.encode_legacy(np.zeros((3, 2, 1), np.int32), height=20, width=48, pitch=16, bits=4)


@pytest.mark.parametrize("payload_bytes", [100, 512 * 512 * 2])
def test_a_false_header_allocates_nothing(payload_bytes: int):
    data = b"\xff\xff\xff\xff" + bytes(payload_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"65535x65535 (pixels take|is more than the limit)"):
            legacy.decode_legacy(data, pitch=128, bits=16, max_pixels=MAX_PIXELS)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()
