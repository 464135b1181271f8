"""PNG files: what Pillow leaves out."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PROFILE = b"iCCP"
_MAX_PROFILE_BYTES = 2**24


def split_metadata(data: bytes) -> tuple[bytes, bytes | None]:
    """Return a PNG file without its texts and its colour profile, and that profile.

    Pillow refuses files with large ones, although the pixels are fine.

    Returns:
        The rest of the file, and the profile: None where there is none, empty where it cannot be used.
    """
    kept, profile = [data[: len(SIGNATURE)]], None
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind == _PROFILE:
            profile = _unpack_profile(data[place + 8 : end - 4])
        elif kind not in _TEXT:
            kept.append(data[place:end])
        place = end
    kept.append(data[place:])
    return b"".join(kept), profile


def _unpack_profile(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    compressed = content.partition(b"\0")[2][1:]  # after the name and the method
    try:
        profile = unpacker.decompress(compressed, _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else profile
