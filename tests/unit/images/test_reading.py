import io
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from cod_jax import files, images
from cod_jax.errors import UserError
from cod_jax.images import reading
from tests.picture_files import png

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def encode(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_16_bit(pixels):
    """Encode uint16 [H, W, 1 to 4], which Pillow cannot write in colour."""
    return png(pixels, 16, {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[-1]])


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def red_and_blue_exchanged_profile():
    profile = srgb_profile()
    for old, new in ((b"rXYZ", b"none"), (b"bXYZ", b"rXYZ"), (b"none", b"bXYZ")):
        profile = profile.replace(old, new, 1)
    return profile


def linear_grey_profile():
    def place(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + b"\0" * 78
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)
    tags = {b"desc": description, b"wtpt": place(0.9642, 1, 0.8249), b"kTRC": curve}
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_rgb_is_returned_as_it_is(image_format, tmp_path):
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(Image.fromarray(RGB), image_format, **options)
    path = tmp_path / "photo"
    path.write_bytes(data)
    for source in (data, path, str(path), Image.open(io.BytesIO(data)), RGB, jnp.asarray(RGB)):
        pixels = images.to_uint8_rgb(source)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(image_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(RGB), image_format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(images.to_uint8_rgb(data), expected)
    opened = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(images.to_uint8_rgb(opened), expected)
    np.testing.assert_array_equal(images.to_uint8_rgb(opened), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(mode):
    image = Image.fromarray(RGB).convert(mode)
    np.testing.assert_array_equal(images.to_uint8_rgb(encode(image, "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_is_divided_by_257_and_rounded(channels):
    pixels = np.arange(256 * 256 * channels).reshape(256, 256, channels).astype(np.uint16)
    expected = np.broadcast_to(np.round(pixels / 257), (256, 256, 3))
    np.testing.assert_array_equal(images.to_uint8_rgb(png_16_bit(pixels)), expected)
    np.testing.assert_array_equal(images.to_uint8_rgb(pixels), expected)


def test_16_bit_tiff_is_divided_by_257_and_rounded():
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = images.to_uint8_rgb(encode(Image.fromarray(grey), "TIFF"))
    np.testing.assert_array_equal(pixels[..., 0], np.round(grey / 257))


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_is_composited_on_white_with_a_warning(channels, dtype):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(1).integers(0, top, (9, 14, channels), dtype=dtype, endpoint=True)
    colour, alpha = pixels[..., :-1] / top, pixels[..., -1:] / top
    expected = np.broadcast_to(255 * (colour * alpha + 1 - alpha), (9, 14, 3))
    encoded = png(pixels, 8 * pixels.dtype.itemsize, {2: 4, 4: 6}[channels])
    for source in (pixels, encoded):
        with pytest.warns(UserWarning, match=r"^picture: transparency was composited on white$"):
            got = images.to_uint8_rgb(source, "picture")
        assert np.abs(got - expected).max() < 1.5  # colour, alpha and result are rounded to 8 bits
        np.testing.assert_array_equal(images.to_uint8_rgb(source, warn=False), got)


def test_transparent_palette_entry_becomes_white():
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    with pytest.warns(UserWarning, match="transparency"):
        pixels = images.to_uint8_rgb(encode(image, "PNG", transparency=2))
    assert pixels.reshape(-1, 3).tolist() == [[10, 20, 30], [40, 50, 60], [255, 255, 255], [100, 110, 120]]


def test_opaque_alpha_is_dropped_in_silence():
    opaque = np.concatenate([RGB, np.full_like(RGB[..., :1], 255)], axis=-1)
    np.testing.assert_array_equal(images.to_uint8_rgb(opaque), RGB)
    np.testing.assert_array_equal(images.to_uint8_rgb(encode(Image.fromarray(opaque), "PNG")), RGB)


def test_cmyk_becomes_rgb():
    cmyk = Image.fromarray(RGB).convert("CMYK")
    pixels = images.to_uint8_rgb(encode(cmyk, "JPEG", quality=100, subsampling=0))
    assert np.abs(pixels.astype(int) - np.asarray(cmyk.convert("RGB"))).max() <= 3


def test_srgb_profile_changes_nothing():
    data = encode(Image.fromarray(RGB), "PNG", icc_profile=srgb_profile())
    np.testing.assert_array_equal(images.to_uint8_rgb(data), RGB)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_embedded_profile_is_converted_to_srgb(mode):
    image = Image.fromarray(RGB).convert(mode)
    data = encode(image, "PNG", icc_profile=red_and_blue_exchanged_profile())
    expected = np.asarray(image.convert("RGB"))[..., ::-1].astype(int)
    assert np.abs(images.to_uint8_rgb(data) - expected).max() <= 1


def test_embedded_grey_profile_is_converted_to_srgb():
    linear = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = images.to_uint8_rgb(encode(Image.fromarray(linear), "PNG", icc_profile=linear_grey_profile()))
    light = linear / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(pixels - expected[..., None]).max() < 1


@pytest.mark.parametrize("profile", [b"nonsense" * 40, srgb_profile()], ids=["damaged", "of another colour space"])
def test_unusable_profile_is_ignored_with_a_warning(profile):
    grey = Image.fromarray(RGB).convert("L")
    with pytest.warns(UserWarning, match="profile is unusable"):
        pixels = images.to_uint8_rgb(encode(grey, "PNG", icc_profile=profile))
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(grey))


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_refused(image_format):
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"film: .*several frames"):
        images.to_uint8_rgb(data, "film")


def test_the_first_picture_of_a_phone_file_is_read():
    first, second = Image.fromarray(np.full((16, 16, 3), 200, np.uint8)), Image.fromarray(RGB)
    pixels = images.to_uint8_rgb(encode(first, "MPO", save_all=True, append_images=[second]))
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - 200).max() <= 1


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.filterwarnings("ignore")  # what Pillow says about damaged metadata
@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.9])
def test_truncated_files_give_one_line(image_format, kept):
    data = encode(Image.fromarray(RGB.repeat(5, axis=0).repeat(5, axis=1)), image_format)
    data = data[: int(len(data) * kept) if kept < 1 else kept]
    with pytest.raises(ValueError, match=r"^photo: [^\n]*; (replace|give)[^\n]*$"):
        images.to_uint8_rgb(data, "photo")


@pytest.mark.filterwarnings("ignore")  # what Pillow says about damaged metadata
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP"])
def test_damaged_bytes_raise_nothing_but_value_errors_of_one_line(image_format):
    rng = np.random.default_rng(2)
    data = encode(Image.fromarray(RGB), image_format)
    messages = []
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(len(data), size=3):
            damaged[place] = rng.integers(256)
        try:
            images.to_uint8_rgb(bytes(damaged), warn=False)
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


def test_files_that_are_no_images_and_missing_files_are_told_apart(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(ValueError, match=r"notes\.txt: not an image"):
        images.to_uint8_rgb(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        images.to_uint8_rgb(tmp_path / "absent.png")


def test_the_formats_have_their_names_and_suffixes():
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in reading.FORMATS}
    assert suffixes | {".avif", ".avifs"} == set(files.IMAGE_SUFFIXES)
    names = {name.upper() for name in files.IMAGE_FORMATS.replace(" or ", ", ").split(", ")}
    assert names == set(reading.FORMATS) | {"AVIF"}


@pytest.mark.parametrize("image_format", ["EPS", "PPM", "TGA", "ICO", "PCX"])
def test_formats_that_are_not_needed_are_not_even_tried(image_format, tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("another program was started"))
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(RGB), image_format))
    for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        with pytest.raises(
            ValueError, match=r"^[^\n]*: not an image [^\n]* JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF file$"
        ):
            images.to_uint8_rgb(source)


def test_too_many_pixels_are_refused_before_decoding():
    start = bytearray(png(RGB, 8, 2)[:60])
    start[16:24] = struct.pack(">II", 60000, 60000)
    start[29:33] = struct.pack(">I", zlib.crc32(start[12:29]))
    with pytest.raises(ValueError, match="more than 134217728 pixels"):
        images.to_uint8_rgb(bytes(start))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_size_is_checked_before_decoding(image_format, monkeypatch):
    def check(*, height, width):
        raise UserError(f"{width}x{height} is too large")

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the pixels were decoded"))
    with pytest.raises(UserError, match=r"^photo: 14x9 is too large$"):
        images.to_uint8_rgb(encode(Image.fromarray(RGB), image_format), "photo", check_size=check)
    for source in (RGB, Image.fromarray(RGB)):
        with pytest.raises(UserError, match=r"^image: 14x9 is too large$"):
            images.to_uint8_rgb(source, check_size=check)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "floating-point"),
        (Image.fromarray(np.full((4, 4), 70000, np.int32)), "0 to 65535"),
    ],
)
def test_other_arrays_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        images.to_uint8_rgb(source)


@pytest.mark.parametrize(
    ("short_edge", "height"), [(None, 96), (97, 96), (96, 96), (49, 96), (48, 48), (20, 24), (1, 12)]
)
def test_jpeg_can_be_decoded_at_a_reduced_size(short_edge, height):
    gradient = np.broadcast_to(np.linspace(0, 255, 160)[None, :, None], (96, 160, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encode(Image.fromarray(gradient), "JPEG", quality=95, exif=exif)
    pixels = images.to_uint8_rgb(data, short_edge=short_edge)
    assert pixels.shape == (height, height * 160 // 96, 3)
    expected = np.linspace(255, 0, pixels.shape[1])[None, :, None]
    assert np.abs(pixels - expected).max() < 12
    assert images.to_uint8_rgb(encode(Image.fromarray(gradient), "PNG"), short_edge=short_edge).shape == (96, 160, 3)


def test_smallest_picture():
    np.testing.assert_array_equal(images.to_uint8_rgb(encode(Image.fromarray(RGB[:1, :1]), "PNG")), RGB[:1, :1])
