"""Every layout of PNG and BMP, and pictures in memory."""

import struct

import numpy as np
import pytest
from PIL import Image

from cod_jax import images
from cod_jax.errors import UserError
from cod_jax.images import layouts
from tests.picture_files import bmp, png

HEIGHT, WIDTH = 12, 17
ON_WHITE = "transparency was composited on white"


def random_integers(*shape, top=255):
    return np.random.default_rng(0).integers(0, top, shape, endpoint=True)


def error(source, right):
    return np.abs(images.to_uint8_rgb(source, "photo").astype(int) - right).max()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("has_key", [False, True])
@pytest.mark.parametrize(
    ("colour_type", "channels", "bits"), [*((0, 1, bits) for bits in (1, 2, 4, 8, 16)), (2, 3, 8), (2, 3, 16)]
)
def test_png_with_and_without_a_transparent_colour(colour_type, channels, bits, has_key, interlaced):
    top = 2**bits - 1
    samples = random_integers(HEIGHT, WIDTH, channels, top=top)
    right = np.broadcast_to(255 * samples / top, (HEIGHT, WIDTH, 3))
    if not has_key:
        assert error(png(samples, bits, colour_type, interlaced=interlaced), right) <= 1
        return
    key = samples[3, 4]
    samples[5:8, 3:9] = key
    right = np.where((samples == key).all(axis=-1, keepdims=True), 255, 255 * samples / top)
    data = png(samples, bits, colour_type, interlaced=interlaced, transparency=struct.pack(f">{channels}H", *key))
    with pytest.warns(UserWarning, match=ON_WHITE):
        assert error(data, np.broadcast_to(right, (HEIGHT, WIDTH, 3))) <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_palettes(bits):
    palette, alpha = random_integers(2**bits, 3), random_integers(2**bits, 1)
    samples = random_integers(HEIGHT, WIDTH, 1, top=2**bits - 1)
    assert error(png(samples, bits, 3, palette=palette), palette[samples[..., 0]]) == 0
    right = (palette * alpha / 255 + 255 - alpha)[samples[..., 0]]
    with pytest.warns(UserWarning, match=ON_WHITE):
        assert error(png(samples, bits, 3, palette=palette, transparency=bytes(alpha[:, 0].tolist())), right) <= 1


@pytest.mark.parametrize(("colour_type", "channels"), [(4, 2), (6, 4)])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_alpha(colour_type, channels, bits):
    samples = random_integers(HEIGHT, WIDTH, channels, top=2**bits - 1)
    colours, alpha = np.split(samples / (2**bits - 1), [channels - 1], axis=-1)
    with pytest.warns(UserWarning, match=ON_WHITE):
        assert error(png(samples, bits, colour_type), 255 * (colours * alpha + 1 - alpha)) <= 1


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_palettes(bits):
    palette = random_integers(2**bits, 3)
    samples = random_integers(HEIGHT, WIDTH, 1, top=2**bits - 1)
    assert error(bmp(samples, bits, palette=palette.tolist()), palette[samples[..., 0]]) == 0


def test_bmp_colours():
    pixels = random_integers(HEIGHT, WIDTH, 4)
    for top_down in (False, True):
        assert error(bmp(pixels[..., :3], 24, top_down=top_down), pixels[..., 2::-1]) == 0
        assert error(bmp(pixels, 32, top_down=top_down), pixels[..., 2::-1]) == 0
    assert error(bmp(pixels, 32, masks=(0xFF000000, 0xFF0000, 0xFF00, 0)), pixels[..., 3:0:-1]) == 0
    word = pixels[..., 0] + 256 * pixels[..., 1]
    right = np.stack([word >> 10 & 31, word >> 5 & 31, word & 31], axis=-1) * 255 / 31
    assert error(bmp(pixels[..., :2], 16), right) <= 1
    right = np.stack([(word >> 11 & 31) / 31, (word >> 5 & 63) / 63, (word & 31) / 31], axis=-1) * 255
    assert error(bmp(pixels[..., :2], 16, masks=(0xF800, 0x7E0, 0x1F, 0)), right) <= 1
    with pytest.raises(UserError, match="Unsupported BMP bitfields layout"):
        images.to_uint8_rgb(bmp(pixels[..., :2], 16, masks=(0xF00, 0xF0, 0xF, 0)))


def test_alpha_of_bmp_counts_unless_it_is_zero_everywhere():
    pixels = random_integers(HEIGHT, WIDTH, 4)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    alpha = pixels[..., 3:] / 255
    with pytest.warns(UserWarning, match=ON_WHITE):
        assert error(bmp(pixels, 32, masks=masks), pixels[..., 2::-1] * alpha + 255 * (1 - alpha)) <= 1
    pixels[..., 3] = 0
    assert error(bmp(pixels, 32, masks=masks), pixels[..., 2::-1]) == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_grey_in_memory(mode):
    grey = random_integers(HEIGHT, WIDTH, top=65535)
    image = Image.frombytes(mode, (WIDTH, HEIGHT), grey.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    assert error(image, 255 * grey[..., None] / 65535) <= 1


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "RGBX", "YCbCr"])
def test_other_modes_in_memory(mode):
    colours = Image.fromarray(random_integers(HEIGHT, WIDTH, 3).astype(np.uint8))
    if mode in ("LA", "La"):
        right = np.asarray(colours.convert("L"))[..., None]
        image = colours.convert("LA").convert(mode)
    else:
        right = np.asarray(colours.convert(mode).convert("RGB")) if mode == "YCbCr" else np.asarray(colours)
        image = colours.convert("RGBA").convert(mode) if mode == "RGBa" else colours.convert(mode)
    assert error(image, right) <= 1


def test_a_layout_that_is_not_listed_is_refused(monkeypatch):
    monkeypatch.setitem(layouts._KNOWN_RAW_MODES, "PNG", {"L"})
    with pytest.raises(UserError, match=r"^photo: this PNG file stores its pixels as RGB, which is not read; save"):
        images.to_uint8_rgb(png(random_integers(HEIGHT, WIDTH, 3), 8, 2), "photo")
