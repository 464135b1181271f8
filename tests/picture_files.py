"""TIFF, PNG and BMP files of any layout, written byte by byte, so that no decoder's own writer is trusted."""

import struct
import zlib

import numpy as np


def pack_samples(samples, bits, *, order=">"):
    """Pack integers [rows, n] into bytes, each row from a new byte; 8, 16 and 32 bits follow the byte order."""
    if bits in (8, 16, 32):
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    places = np.arange(bits - 1, -1, -1)
    flat = ((samples[..., None].astype(np.int64) >> places) & 1).astype(np.uint8).reshape(len(samples), -1)
    return np.packbits(flat, axis=1).tobytes()


def tiff(
    samples,
    bits,
    photometric,
    *,
    planar=False,
    order="<",
    extra=(),
    tags=None,
    deflate=False,
    predictor=False,
    big=False,
    rows_per_strip=None,
    tile=None,
    more_pages=(),
):
    """Encode samples [H, W, C] as TIFF.

    Args:
        samples: Integers below 2**bits, or floats of 32 bits.
        bits: Bits of a sample.
        photometric: Value of the tag.
        planar: Whether each channel lies in a plane of its own.
        order: "<" or ">".
        extra: Values of the tag ExtraSamples.
        tags: Further tags, {number: (type, values)}, with type 3 (short), 4 (long), 5 (rational) or 7 (bytes).
        deflate: Whether the data are compressed.
        predictor: Whether differences of neighbours are stored; 8 or 16 bits.
        big: Whether it is BigTIFF.
        rows_per_strip: Rows of a strip; all if None.
        tile: Side of square tiles in place of strips.
        more_pages: Further pages, dicts of these arguments with those without a default.
    """
    first = {
        "samples": samples,
        "bits": bits,
        "photometric": photometric,
        "planar": planar,
        "extra": extra,
        "tags": tags,
        "deflate": deflate,
        "predictor": predictor,
        "rows_per_strip": rows_per_strip,
        "tile": tile,
    }
    pages = [first, *more_pages]
    mark = b"II" if order == "<" else b"MM"
    if big:
        out = bytearray(mark + struct.pack(order + "HHHQ", 43, 8, 0, 16))
    else:
        out = bytearray(mark + struct.pack(order + "HI", 42, 8))
    for number, page in enumerate(pages):
        _append_page(out, order, big, number == len(pages) - 1, **page)
    return bytes(out)


def _append_page(
    out,
    order,
    big,
    last,
    *,
    samples,
    bits,
    photometric,
    planar=False,
    extra=(),
    tags=None,
    deflate=False,
    predictor=False,
    rows_per_strip=None,
    tile=None,
):
    height, width, channels = samples.shape
    rows_per_strip = rows_per_strip or height
    planes = [samples[..., [channel]] for channel in range(channels)] if planar else [samples]
    chunks = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            pieces = [
                padded[top : top + tile, left : left + tile]
                for top in range(0, height, tile)
                for left in range(0, width, tile)
            ]
        else:
            pieces = [plane[top : top + rows_per_strip] for top in range(0, height, rows_per_strip)]
        for piece in pieces:
            stored = piece
            if predictor:
                stored = piece.astype(np.int64)
                stored[:, 1:] = (piece[:, 1:].astype(np.int64) - piece[:, :-1]) % 2**bits
            if samples.dtype.kind == "f":
                data = stored.astype(f"{order}f4").tobytes()
            else:
                data = pack_samples(stored.reshape(len(stored), -1), bits, order=order)
            chunks.append(zlib.compress(data) if deflate else data)
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [8 if deflate else 1]),
        262: (3, [photometric]),
        277: (3, [channels]),
        284: (3, [2 if planar else 1]),
    }
    if predictor:
        entries[317] = (3, [2])
    if extra:
        entries[338] = (3, list(extra))
    if samples.dtype.kind == "f":
        entries[339] = (3, [3] * channels)
    place_tag, size_tag = (324, 325) if tile else (273, 279)
    if tile:
        entries[322] = entries[323] = (4, [tile])
    else:
        entries[278] = (4, [rows_per_strip])
    entries[place_tag] = (4, [0] * len(chunks))
    entries[size_tag] = (4, [len(chunk) for chunk in chunks])
    entries |= tags or {}

    start = len(out)
    word, entry_size, head = ("Q", 20, "Q") if big else ("I", 12, "H")
    inline = struct.calcsize(order + word)
    directory = struct.calcsize(order + head) + entry_size * len(entries) + inline
    values_at = start + directory
    lengths = {3: 2, 4: 4, 5: 8, 7: 1}
    body_length = sum(n + n % 2 for kind, values in entries.values() if (n := lengths[kind] * len(values)) > inline)
    place, places = values_at + body_length, []
    for chunk in chunks:
        places.append(place)
        place += len(chunk) + len(chunk) % 2
    entries[place_tag] = (4, places)

    table, body = bytearray(struct.pack(order + head, len(entries))), bytearray()
    for tag, (kind, values) in sorted(entries.items()):
        data = _values(order, kind, values)
        table += struct.pack(order + "HH" + word, tag, kind, len(values))
        if len(data) <= inline:
            table += data.ljust(inline, b"\0")
        else:
            table += struct.pack(order + word, values_at + len(body))
            body += data + b"\0" * (len(data) % 2)
    table += struct.pack(order + word, 0 if last else place)
    out += table + body
    for chunk in chunks:
        out += chunk + b"\0" * (len(chunk) % 2)


def _values(order, kind, values):
    if kind == 7:
        return bytes(values)
    if kind == 5:
        return b"".join(struct.pack(order + "II", *value) for value in values)
    return struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)


def png(samples, bits, colour_type, *, palette=None, transparency=None, chunks=(), interlaced=False):
    """Encode samples [H, W, C] as PNG; `chunks` are (kind, data) before the pixels, `transparency` the data of tRNS."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = samples.shape
    data = bytearray()
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        for row in part if part.size else ():
            data += b"\0" + pack_samples(row.reshape(1, -1), bits)
    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, int(interlaced)))
    for kind, extra in chunks:
        content += chunk(kind, extra)
    if palette is not None:
        content += chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes())
    if transparency is not None:
        content += chunk(b"tRNS", transparency)
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IDAT", zlib.compress(bytes(data))) + chunk(b"IEND", b"")


def bmp(pixels, bits, *, masks=None, top_down=False, palette=None):
    """Encode BMP: bytes [H, W, bits / 8] in file order, or indices [H, W, 1] of a palette [n, 3] of RGB."""
    height, width, _ = pixels.shape
    rows = pixels if top_down else pixels[::-1]
    lines = [pack_samples(row.reshape(1, -1), 8 if palette is None else bits) for row in rows]
    lines = [line + b"\0" * (-len(line) % 4) for line in lines]
    table = b""
    if palette is not None:
        table = b"".join(bytes([blue, green, red, 0]) for red, green, blue in palette)
    size = 108 if masks else 40
    header = struct.pack(
        "<IiiHHIIiiII", size, width, -height if top_down else height, 1, bits, 3 if masks else 0,
        sum(map(len, lines)), 2835, 2835, len(palette) if palette is not None else 0, 0,
    )  # fmt: skip
    if masks:
        header += struct.pack("<4I", *masks) + b"BGRs" + b"\0" * 48
    start = 14 + len(header) + len(table)
    content = header + table + b"".join(lines)
    return b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, start) + content
