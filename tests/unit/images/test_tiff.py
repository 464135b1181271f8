"""Every layout of TIFF is read right within one level, or refused by name."""

import builtins
import io
import sys

import numpy as np
import pytest
from PIL import Image

from cod_jax import images
from cod_jax.errors import UserError
from tests.picture_files import tiff

HEIGHT, WIDTH = 10, 19
NUM_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}
WRITERS = {
    "plain": {},
    "deflate": {"deflate": True},
    "predictor": {"deflate": True, "predictor": True},
    "tiles": {"tile": 16},
    "strips": {"rows_per_strip": 3},
    "BigTIFF": {"big": True},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*transparency was composited")


def random_samples(channels, bits, *, seed=0):
    samples = np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    samples[0], samples[1] = 0, 2**bits - 1
    return samples


def expected(samples, bits, photometric, extra=()):
    """Return what the specification says, in float, on white."""
    values = samples / (2**bits - 1)
    colours = values[..., : NUM_COLOURS[photometric]]
    if photometric == 0:
        colours = 1 - colours
    if photometric == 5:
        colours = (1 - colours[..., :3]) * (1 - colours[..., 3:])
    if extra in ((1,), (2,)):
        alpha = values[..., [-1]]
        colours = (colours if extra == (1,) else colours * alpha) + 1 - alpha
    return np.broadcast_to(255 * colours, (*samples.shape[:2], 3))


def error(data, right):
    return np.abs(images.to_uint8_rgb(data, "photo").astype(int) - right).max()


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    ("photometric", "extra"),
    # Nothing says what colours mean that are multiplied with alpha where 0 is white or inks are stored.
    [*((kind, extra) for kind in NUM_COLOURS for extra in ((), (0,), (2,))), (1, (1,)), (2, (1,))],
)
def test_every_layout_is_within_one_level(photometric, bits, extra, planar):
    num_colours = NUM_COLOURS[photometric]
    samples = random_samples(num_colours + len(extra), bits)
    if extra == (1,):
        samples[..., :num_colours] = np.minimum(samples[..., :num_colours], samples[..., num_colours:])
    right = expected(samples, bits, photometric, extra)
    for name, options in WRITERS.items():
        if name == "predictor" and bits not in (8, 16):
            continue
        for order in "<>":
            data = tiff(samples, bits, photometric, extra=extra, planar=planar, order=order, **options)
            assert error(data, right) <= 1 + 1e-9, (name, order)


@pytest.mark.parametrize("scale", [257, 1], ids=["16-bit entries", "8-bit entries"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_palettes(bits, scale):
    palette = np.random.default_rng(1).integers(0, 256, (3, 2**bits))
    samples = random_samples(1, bits)
    for planar in (False, True):
        for order in "<>":
            entries = {320: (3, (palette * scale).reshape(-1).tolist())}
            data = tiff(samples, bits, 3, planar=planar, order=order, tags=entries)
            assert error(data, np.moveaxis(palette[:, samples[..., 0]], 0, -1)) == 0


@pytest.mark.parametrize(
    ("photometric", "bits"), [(0, 1), (1, 1), (1, 2), (1, 4), (0, 8), (1, 8), (1, 12), (1, 16), (2, 8), (2, 16)]
)
def test_reversed_bits_of_bytes(photometric, bits):
    samples = random_samples(NUM_COLOURS[photometric], bits)
    data = bytearray(tiff(samples, bits, photometric, tags={266: (3, [2])}))
    length = HEIGHT * -(-WIDTH * NUM_COLOURS[photometric] * bits // 8)
    data[-(length + length % 2) :] = [int(f"{byte:08b}"[::-1], 2) for byte in data[-(length + length % 2) :]]
    assert error(bytes(data), expected(samples, bits, photometric)) <= 1


def test_cielab():
    lightness, a, b = 60 + 3 * np.arange(40), np.arange(-20, 20), np.arange(20, -20, -1)
    samples = np.stack(np.broadcast_arrays(lightness[:, None], a % 256, b % 256), axis=-1)
    y = (lightness[:, None] / 255 * 100 + 16) / 116
    xyz = np.stack([0.9642 * (y + a / 500) ** 3, np.broadcast_to(y, (40, 40)) ** 3, 0.8249 * (y - b / 200) ** 3], -1)
    # D50 to linear sRGB, from Lindbloom's tables.
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.033454],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(xyz @ np.transpose(matrix), 0, 1)
    right = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    for deflate in (False, True):
        assert error(tiff(samples, 8, 8, deflate=deflate), right) <= 1


def test_ycbcr_that_is_not_jpeg():
    samples = random_samples(3, 8)
    y, cb, cr = np.moveaxis(samples - np.array([0, 128, 128]), -1, 0)
    right = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1).clip(0, 255)
    assert error(tiff(samples, 8, 6, deflate=True, tags={530: (3, [1, 1])}), right) <= 1


@pytest.mark.parametrize(
    ("samples", "bits", "photometric", "tags", "named"),
    [
        (np.zeros((4, 5, 1), np.float32), 32, 1, None, "32-bit floating-point grey"),
        (np.zeros((4, 5, 1), int), 8, 1, {339: (3, [2])}, "8-bit signed grey"),
        (np.zeros((4, 5, 1), int), 16, 1, {339: (3, [2])}, "16-bit signed grey"),
        (np.zeros((4, 5, 1), int), 32, 1, None, "32-bit grey"),
        (np.zeros((4, 5, 1), int), 16, 32803, None, "16-bit raw of a colour filter array"),
        (np.zeros((4, 5, 3), int), 16, 32845, None, "16-bit colours of kind 32845"),
        (np.zeros((4, 5, 4), int), 8, 5, {332: (3, [2])}, "8-bit CMYK"),
        (np.zeros((4, 5, 4), int), 8, 2, None, "8-bit RGB in 4 channels"),
        (np.zeros((4, 5, 3), int), 8, 6, None, "8-bit YCbCr"),
        (np.zeros((4, 5, 3), int), 16, 8, None, "16-bit CIELab"),
    ],
)
def test_kinds_that_are_not_read_are_named(samples, bits, photometric, tags, named):
    data = tiff(samples, bits, photometric, tags=tags)
    with pytest.raises(UserError, match=f"^photo: expected a TIFF file with .*, got {named}; save the picture as PNG$"):
        images.to_uint8_rgb(data, "photo")


@pytest.mark.parametrize("missing", ["tifffile", "imagecodecs"])
def test_without_the_extra_a_file_that_needs_it_is_refused(missing, monkeypatch):
    plain_import = builtins.__import__
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tifffile", "imagecodecs")]:
        monkeypatch.delitem(sys.modules, name)

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)
        return plain_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"^photo: reading a TIFF file with 12-bit RGB needs .* 'cod_jax\[tiff\]'"):
        images.to_uint8_rgb(tiff(random_samples(3, 12), 12, 2), "photo")


def test_a_small_second_page_is_left_out_and_a_large_one_is_refused():
    samples = random_samples(3, 8)
    small = {"samples": samples[:4, :9], "bits": 8, "photometric": 2}
    marked = {"samples": samples, "bits": 8, "photometric": 2, "tags": {254: (4, [1])}}
    mask = {"samples": samples[..., :1] % 2, "bits": 1, "photometric": 4, "tags": {254: (4, [4])}}
    for pages in ([small], [marked], [mask], [small, mask]):
        data = tiff(samples, 8, 2, more_pages=pages)
        np.testing.assert_array_equal(images.to_uint8_rgb(data), samples)
        np.testing.assert_array_equal(images.to_uint8_rgb(Image.open(io.BytesIO(data))), samples)
    other = {"samples": samples, "bits": 8, "photometric": 2}
    with pytest.raises(UserError, match="several frames"):
        images.to_uint8_rgb(tiff(samples, 8, 2, more_pages=[small, other]))


@pytest.mark.parametrize("bits", [12, 16])
def test_opened_pictures_are_read_as_their_files_are(bits):
    samples = random_samples(1, bits)
    data = tiff(samples, bits, 1 if bits == 12 else 0)
    right = expected(samples, bits, 1 if bits == 12 else 0)
    opened = Image.open(io.BytesIO(data))
    assert error(opened, right) <= 1
    opened.load()
    assert error(opened, right) <= 1


def test_a_loaded_picture_of_a_layout_that_pillow_misreads_is_refused():
    opened = Image.open(io.BytesIO(tiff(random_samples(3, 16), 16, 2, planar=True)))
    opened.load()
    with pytest.raises(UserError, match=r"Pillow is not known to read .* right; give the path instead"):
        images.to_uint8_rgb(opened)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("bits", [8, 14])
def test_orientation_is_applied_whoever_decodes(bits, orientation):
    samples = random_samples(3, bits)
    right = np.rot90(expected(samples, bits, 2), {3: 2, 6: -1}[orientation])
    assert error(tiff(samples, bits, 2, tags={274: (3, [orientation])}), right) <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [8, 14])
def test_damaged_files_give_one_line(bits):
    rng = np.random.default_rng(2)
    data = tiff(random_samples(3, bits), bits, 2)
    messages = []
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(220, size=3):
            damaged[place] = rng.integers(256)
        try:
            images.to_uint8_rgb(bytes(damaged), warn=False)
        except UserError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
