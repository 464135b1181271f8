"""Pictures in other formats, recognised by how their files begin."""

# Of a WebP file four bytes in between are its length.
_BEGINNINGS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WebP": (b"RIFF",),
    "TIFF": (b"II*\0", b"MM\0*"),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
}


def explain_picture(data: bytes) -> str:
    """Say that the data is a picture in another format.

    A `.cod` file may happen to begin like one, so this explains why data is refused and is not a reason to refuse it.

    Args:
        data: A file, or its first 16 bytes.

    Returns:
        A sentence, or "" if no format is recognised.
    """
    for name, beginnings in _BEGINNINGS.items():
        if data.startswith(beginnings) and (name != "WebP" or data[8:12] == b"WEBP"):
            return f"this is a {name} picture, not a .cod file; compress it first"
    return ""
