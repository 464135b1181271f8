"""Tell files by their first bytes: names of kinds that are not read, and colour spaces that Pillow does not report."""

import struct

from cod_jax.files import BinaryFile
from cod_jax.images import png

_BASELINE_MARKERS = (0xC0, 0xC1, 0xC2)
_BRANDS = {
    "heic": "HEIC",
    "heix": "HEIC",
    "hevc": "HEIC",
    "mif1": "HEIF",
    "msf1": "HEIF",
    "avif": "AVIF",
    "avis": "AVIF",
}
_SIGNATURES = {
    png.SIGNATURE: "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"v/1\x01": "OpenEXR",
}
# Values of the code points for colour, ITU-T H.273: primaries of sRGB or unknown ones, and curves for bright displays.
_SRGB_PRIMARIES = (1, 2)
_HDR_CURVES = {16: "PQ", 18: "HLG"}
_HEADER_BYTES = 2**16


def name_of(start: bytes) -> str | None:
    """Return the name of the format of a file, with what is special about it, or None if it is unknown.

    Args:
        start: The beginning of the file, some kilobytes.
    """
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12].decode("latin-1"))
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[:2] == b"\xff\xd8":
        return _name_of_jpeg(start)
    return next((name for signature, name in _SIGNATURES.items() if start.startswith(signature)), None)


def _name_of_jpeg(start: bytes) -> str:
    place = 2
    while place + 5 <= len(start) and start[place] == 0xFF:
        marker, length, precision = start[place + 1], *struct.unpack_from(">HB", start, place + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return (
                f"{precision}-bit JPEG" if marker in _BASELINE_MARKERS else f"JPEG of the rare process {marker - 0xC0}"
            )
        if marker == 0xF7:
            return "JPEG-LS"
        place += 2 + length
    return "JPEG"


def colour_space(file: BinaryFile) -> tuple[str | None, bool]:
    """Return what a PNG or AVIF file says about its colours apart from a profile.

    Returns:
        The name of the curve if it is one of high dynamic range, else None; and whether the primaries are those of sRGB
        as far as is known.
    """
    file.seek(0)
    start = file.read(_HEADER_BYTES)
    points = None
    if start.startswith(png.SIGNATURE):
        place = start.find(b"\x00\x00\x00\x04cICP")
        points = (start[place + 8], start[place + 9]) if 0 <= place < len(start) - 10 else None
    elif start[4:8] == b"ftyp":
        place = start.find(b"colrnclx")
        points = struct.unpack_from(">HH", start, place + 8) if 0 <= place < len(start) - 12 else None
    if points is None:
        return None, True
    primaries, curve = points
    return _HDR_CURVES.get(curve), primaries in _SRGB_PRIMARIES
