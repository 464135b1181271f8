"""Data beside the pixels: texts, profiles, orientation, and what Pillow says about it."""

import io
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from cod_jax import images
from cod_jax.errors import UserError
from cod_jax.images import reading
from tests.picture_files import png

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
LARGE_TEXT = b"Comment\0\0" + zlib.compress(bytes(3 * 2**20))


def chunk(kind, data):
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"zTXt", LARGE_TEXT),
        (b"iTXt", b"Comment\0\1\0\0\0" + LARGE_TEXT[9:]),
        (b"tEXt", b"Comment\0" + b"x" * 2**21),
    ],
)
def test_large_texts_of_png_do_not_matter(kind, data):
    before = png(RGB, 8, 2, chunks=[(kind, data)])
    plain = png(RGB, 8, 2)
    after = plain[:-12] + chunk(kind, data) + plain[-12:]
    many = png(RGB, 8, 2, chunks=[(kind, data)] * 70)
    for encoded in (before, after, many):
        np.testing.assert_array_equal(images.to_uint8_rgb(encoded), RGB)
        np.testing.assert_array_equal(images.to_uint8_rgb(Image.open(io.BytesIO(plain))), RGB)
    with pytest.raises(UserError, match=r"^photo: the picture cannot be read"):
        images.to_uint8_rgb(before[: len(before) - 60], "photo")


def test_a_large_profile_of_png_is_used_and_a_huge_one_is_ignored_with_a_warning():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"none"), (b"bXYZ", b"rXYZ"), (b"none", b"bXYZ")):  # exchanges red and blue
        profile = profile.replace(old, new, 1)
    large = (len(profile) + 2**21).to_bytes(4) + profile[4:] + bytes(2**21)
    data = png(RGB, 8, 2, chunks=[(b"iCCP", b"name\0\0" + zlib.compress(large))])
    assert np.abs(images.to_uint8_rgb(data).astype(int) - RGB[..., ::-1]).max() <= 1
    huge = png(RGB, 8, 2, chunks=[(b"iCCP", b"name\0\0" + zlib.compress(bytes(2**25)))])
    with pytest.warns(UserWarning, match="profile is unusable"):
        np.testing.assert_array_equal(images.to_uint8_rgb(huge), RGB)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_picture_turned_by_hand_is_not_turned_again(image_format):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, image_format, exif=exif)
    opened = Image.open(buffer)
    upright = ImageOps.exif_transpose(opened)
    np.testing.assert_array_equal(images.to_uint8_rgb(upright), np.asarray(upright.convert("RGB")))
    for turned in (opened.transpose(Image.Transpose.ROTATE_270), opened.rotate(-90, expand=True), opened.copy()):
        if image_format == "TIFF":  # Pillow has turned it and removed the tag
            got = images.to_uint8_rgb(turned)
        else:
            with pytest.warns(UserWarning, match="orientation tag was not applied; use PIL"):
                got = images.to_uint8_rgb(turned)
        np.testing.assert_array_equal(got, np.asarray(turned.convert("RGB")))


def picture_that_pillow_warns_of():
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    directory = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[directory : directory + 2], "little")
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if data[entry : entry + 2] == (282).to_bytes(2, "little"):
            pytest.fail("it has a resolution")
    data += bytes(2)
    table = data[directory + 2 : directory + 2 + 12 * count]
    # A resolution that lies outside of the file.
    wrong = b"".join(value.to_bytes(size, "little") for value, size in ((282, 2), (5, 2), (1, 4), (2**30, 4)))
    entries = sorted([bytes(table[i : i + 12]) for i in range(0, len(table), 12)] + [wrong], key=lambda e: e[1::-1])
    data[4:8] = len(data).to_bytes(4, "little")
    return bytes(data) + (count + 1).to_bytes(2, "little") + b"".join(entries) + bytes(4)


def test_warnings_of_pillow_name_the_picture(tmp_path):
    (tmp_path / "photo.tif").write_bytes(picture_that_pillow_warns_of())
    with pytest.warns(UserWarning, match=r"^[^\n]*photo\.tif: (Truncated|Corrupt)"):
        np.testing.assert_array_equal(images.to_uint8_rgb(tmp_path / "photo.tif"), RGB)
    assert images.to_uint8_rgb(tmp_path / "photo.tif", warn=False).shape == RGB.shape


def test_the_filters_of_warnings_are_left_alone_in_other_threads():
    before = list(warnings.filters)
    seen = []

    def read():
        images.to_uint8_rgb(png(RGB, 8, 2), check_size=lambda **_: seen.append(list(warnings.filters)))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert seen == [before]


def png_with_code_points(primaries, curve):
    return png(RGB, 8, 2, chunks=[(b"cICP", bytes([primaries, curve, 0, 1]))])


def test_pictures_of_high_dynamic_range_are_refused_and_other_colours_noted():
    np.testing.assert_array_equal(images.to_uint8_rgb(png_with_code_points(1, 13)), RGB)
    for curve, name in ((16, "PQ"), (18, "HLG")):
        with pytest.raises(UserError, match=rf"^photo: .* high dynamic range \({name}\); convert it to sRGB"):
            images.to_uint8_rgb(png_with_code_points(9, curve), "photo")
    with pytest.warns(UserWarning, match="colours are not those of sRGB"):
        images.to_uint8_rgb(png_with_code_points(12, 13))


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (bytes([0xFF, 0xD8, 0xFF, 0xC1, 0, 17, 12]) + bytes(40), "12-bit JPEG"),
        (bytes([0xFF, 0xD8, 0xFF, 0xF7, 0, 17, 8]) + bytes(40), "JPEG-LS"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
        (b"8BPS" + bytes(40), "Photoshop"),
    ],
)
def test_files_of_unread_kinds_are_named(start, kind):
    with pytest.raises(UserError, match=rf"^photo: expected an intact JPEG.* got one that begins as {kind}; replace"):
        images.to_uint8_rgb(start, "photo")


@pytest.mark.skipif("AVIF" not in reading.FORMATS, reason="this Pillow has no AVIF")
def test_avif_is_read_with_its_orientation():
    smooth = np.asarray(Image.fromarray(RGB).resize((64, 48), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    got = images.to_uint8_rgb(buffer.getvalue())
    assert np.abs(got.astype(int) - np.rot90(smooth, -1)).max() <= 3
