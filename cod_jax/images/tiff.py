"""TIFF files: which layouts Pillow reads right, and reading the others with tifffile."""

import dataclasses
import io
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError
from cod_jax.files import BinaryFile
from cod_jax.images.colour import scale_to_16_bits

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# More are counted as several frames.
_MAX_PAGES = 64
_MAX_ENTRIES = 4096
_MAX_VALUES = 16
_VALUE_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}

_NEW_SUBFILE_TYPE, _OLD_SUBFILE_TYPE = 254, 255
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _ORIENTATION, _NUM_SAMPLES, _PLANAR = 266, 274, 277, 284
_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 332, 338, 339
_TAGS = {
    *(_NEW_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC),
    *(_FILL_ORDER, _ORIENTATION, _NUM_SAMPLES, _PLANAR, _INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT),
}

# Names and numbers of colours of the values of PhotometricInterpretation.
_COLOURS = {
    0: ("grey with white as 0", 1),
    1: ("grey", 1),
    2: ("RGB", 3),
    3: ("palette", 1),
    4: ("mask", 1),
    5: ("CMYK", 4),
    6: ("YCbCr", 3),
    8: ("CIELab", 3),
    9: ("ICCLab", 3),
    10: ("ITULab", 3),
    32803: ("raw of a colour filter array", 1),
    34892: ("linear raw", 1),
}
_JPEG = (6, 7)  # old and new style
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8

# Layouts that Pillow reads right: PhotometricInterpretation, ExtraSamples and bits of each sample.
_PILLOW = {
    *((colour, (), bits) for colour in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE) for bits in (1, 2, 4, 8)),
    *((colour, (), 8) for colour in (_CMYK, _YCBCR, _LAB)),
    *((_RGB, extra, bits) for extra in ((), (0,), (1,), (2,)) for bits in (8, 16)),
    *((_BLACK_IS_ZERO, extra, 8) for extra in ((0,), (1,), (2,))),
    (_BLACK_IS_ZERO, (), 16),
    (_CMYK, (), 16),
}
_PILLOW_LITTLE_ENDIAN = {(_WHITE_IS_ZERO, (), 16), (_BLACK_IS_ZERO, (), 12)}
_PILLOW_PLANAR = {(_RGB, (), 8), (_CMYK, (), 8)}
_PILLOW_REVERSED = {
    *((grey, (), bits) for grey in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) for bits in (1, 2, 4)),
    *((colour, (), 8) for colour in (_BLACK_IS_ZERO, _RGB)),
}
_MISSING = "needs tifffile and imagecodecs; install the extra tiff: pip install 'cod_jax[tiff]', or save it as PNG"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of the samples of the first page in the file.

    Attributes:
        height: Rows as stored.
        width: Columns as stored.
        photometric: What the samples mean, as the tag has it.
        bits: Bits of each sample of a pixel.
        sample_format: 1 for unsigned integers, 2 for signed ones, 3 for floats; 0 where the samples differ.
        planar: Whether each channel lies in a plane of its own.
        extra: Meaning of the samples after the colours: 0 unknown, 1 alpha that colours are multiplied with, 2 alpha.
        compression: As the tag has it; 1 is none.
        orientation: As in EXIF.
        big_endian: Whether the high byte comes first.
        is_big: Whether places in the file have 64 bits (BigTIFF).
        reversed_bits: Whether the lowest bit of a byte comes first.
        is_special: Whether the inks are not the usual ones, alpha has no clear meaning, or YCbCr is not compressed.
    """

    height: int
    width: int
    photometric: int
    bits: tuple[int, ...]
    sample_format: int
    planar: bool
    extra: tuple[int, ...]
    compression: int
    orientation: int
    big_endian: bool
    is_big: bool
    reversed_bits: bool
    is_special: bool

    def __str__(self) -> str:
        kinds = {1: "", 2: "signed ", 3: "floating-point "}
        name = _COLOURS.get(self.photometric, (f"colours of kind {self.photometric}", 0))[0]
        channels = f" in {len(self.bits)} channels" if self.num_colours not in (0, len(self.bits)) else ""
        bits = "/".join(map(str, sorted(set(self.bits))))
        planes = ", each channel in a plane of its own" if self.planar and len(self.bits) > 1 else ""
        return f"{bits}-bit {kinds.get(self.sample_format, 'mixed ')}{name}{channels}{planes}"

    @property
    def num_colours(self) -> int:
        """Samples of a pixel that are colours."""
        return _COLOURS.get(self.photometric, ("", 0))[1]

    @property
    def num_resolved_colours(self) -> int:
        """The same after a palette was resolved."""
        return 3 if self.photometric == _PALETTE else self.num_colours

    @property
    def is_inverted(self) -> bool:
        """Whether Pillow leaves white as 0."""
        return self.photometric == _WHITE_IS_ZERO and max(self.bits) > 8

    @property
    def is_premultiplied(self) -> bool:
        """Whether the colours are multiplied with alpha."""
        return self.extra[:1] == (1,)


def is_tiff(start: bytes) -> bool:
    """Return whether a file that begins so is a TIFF file."""
    return start.startswith(SIGNATURES)


def read_layout(file: BinaryFile) -> Layout | None:
    """Return the layout of the first page, or None if it is followed by other pictures of its size.

    Pages that are marked as a smaller copy or a mask, and pages of less than half its sides, may follow.

    Raises:
        ValueError, struct.error: The directory is damaged.
    """
    start = _read(file, 0, 16)
    order = "<" if start[:2] == b"II" else ">"
    is_big = 43 in (start[2], start[3])
    (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), start, 8 if is_big else 4)
    pages: list[dict[int, tuple[int, ...]]] = []
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        if len(pages) == _MAX_PAGES:
            return None
        try:
            page, place = _read_directory(file, place, order, is_big)
        except (ValueError, struct.error):
            if not pages:
                raise
            break  # what follows the first page is not needed
        pages.append(page)
    if not pages:
        raise ValueError("no page")
    layout = _layout(pages[0], big_endian=order == ">", is_big=is_big)
    return layout if all(_is_secondary(page, layout) for page in pages[1:]) else None


def layout_of_tags(tags: Any) -> Layout:
    """Return the layout of the page whose tags Pillow has read, its `tag_v2`."""
    found: dict[int, Any] = {tag: tags[tag] for tag in _TAGS if tag in tags}
    page: dict[int, tuple[int, ...]] = {tag: tuple(np.atleast_1d(value).tolist()) for tag, value in found.items()}
    return _layout(page, big_endian=tags.prefix == b"MM", is_big=False)


def pillow_is_right(layout: Layout) -> bool:
    """Return whether Pillow is known to read a layout within one level; tests compare each of these."""
    bits = set(layout.bits)
    is_unusual = layout.sample_format != 1 or layout.is_special or len(bits) != 1
    if is_unusual or (layout.is_big and layout.big_endian):  # Pillow does not open the latter
        return False
    (depth,) = bits
    if layout.compression in _JPEG:
        return layout.photometric in (_BLACK_IS_ZERO, _RGB, _YCBCR) and depth == 8 and not layout.extra
    if len(layout.bits) != layout.num_colours + len(layout.extra):
        return False
    kind = (layout.photometric, layout.extra, depth)
    if layout.planar or layout.reversed_bits:
        known = _PILLOW_PLANAR if layout.planar else _PILLOW_REVERSED
        return kind in known and not (layout.planar and layout.reversed_bits)
    return kind in _PILLOW or (not layout.big_endian and kind in _PILLOW_LITTLE_ENDIAN)


def read_samples(file: BinaryFile, layout: Layout, name: str) -> tuple[npt.NDArray[Any], int, bytes | None]:
    """Read the first page with tifffile.

    Args:
        file: The file.
        layout: Its layout.
        name: Name of the picture in messages.

    Returns:
        Samples [H, W, C] as stored, but palettes resolved to 16-bit RGB and grey with white as the largest; bits of a
        sample; and the colour profile.

    Raises:
        UserError: A kind that is not read, or a package is missing.
        Exception: The file is damaged; tifffile has many ways to say so.
    """
    bits = set(layout.bits)
    depth = max(bits)
    is_read = (
        layout.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK)
        and layout.compression not in _JPEG
        and layout.sample_format == 1
        and not layout.is_special
        and len(bits) == 1
        and 1 <= depth <= 16
        and len(layout.bits) == layout.num_colours + len(layout.extra)
    )
    if not is_read:
        raise UserError(
            f"{name}: expected a TIFF file with 1 to 16 bits of grey, palette, RGB or CMYK, got {layout}; "
            "save the picture as PNG"
        )
    missing = f"{name}: reading a TIFF file with {layout} {_MISSING}"
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise UserError(missing) from error
    file.seek(0)
    with tifffile.TiffFile(io.BytesIO(file.read())) as opened:
        page: Any = opened.pages[0]
        shape = (layout.height, layout.width, len(layout.bits))
        if math.prod(page.shape) != math.prod(shape):
            raise ValueError("its tags contradict each other")
        try:
            stored: npt.NDArray[Any] = page.asarray(squeeze=False, maxworkers=1)  # [planes, 1, H, W, samples]
        except (NotImplementedError, ImportError, ValueError) as error:
            if "imagecodecs" in str(error):
                raise UserError(missing) from error
            raise
        stored = stored.astype(np.uint16)  # single bits come as truth values
        samples = np.moveaxis(stored[:, 0, ..., 0], 0, -1) if layout.planar else stored[0, 0]
        if samples.shape != shape:
            raise ValueError("its tags contradict each other")
        if layout.photometric == _PALETTE:
            samples, depth = _resolve_palette(samples, depth, np.asarray(page.colormap)), 16
        elif layout.photometric == _WHITE_IS_ZERO:
            samples[..., 0] = 2**depth - 1 - samples[..., 0]
        return samples, depth, page.iccprofile


def _resolve_palette(samples: npt.NDArray[Any], bits: int, colours: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return RGB [H, W, 3 + extra] of indices [H, W, 1 + extra] and a palette [3, K]."""
    if colours.max() < 256:  # some programs write palettes of 8 bits
        colours = colours * 257
    alpha = scale_to_16_bits(samples[..., 1:], bits)
    return np.concatenate([np.moveaxis(colours[:, samples[..., 0]], 0, -1).astype(np.uint16), alpha], axis=-1)


def _layout(page: dict[int, tuple[int, ...]], *, big_endian: bool, is_big: bool) -> Layout:
    def first(tag: int, default: int) -> int:
        return page.get(tag, (default,))[0]

    compression = first(_COMPRESSION, 1)
    photometric = first(_PHOTOMETRIC, 0)
    if compression == _JPEG[0]:
        photometric = _YCBCR
    num_samples = first(_NUM_SAMPLES, 3 if compression in _JPEG and photometric in (_RGB, _YCBCR) else 1)
    bits = page.get(_BITS, (8 if compression in _JPEG else 1,))
    extra = page.get(_EXTRA_SAMPLES, ())
    formats = set(page.get(_SAMPLE_FORMAT, (1,)))
    if _WIDTH not in page or _HEIGHT not in page or not 1 <= num_samples <= _MAX_VALUES:
        raise ValueError("its page has no size, or too many channels")
    return Layout(
        height=first(_HEIGHT, 0),
        width=first(_WIDTH, 0),
        photometric=photometric,
        bits=bits * num_samples if len(bits) == 1 else bits[:num_samples],
        sample_format=formats.pop() if len(formats) == 1 else 0,
        planar=first(_PLANAR, 1) == 2,
        extra=extra,
        compression=compression,
        orientation=first(_ORIENTATION, 1),
        big_endian=big_endian,
        is_big=is_big,
        reversed_bits=first(_FILL_ORDER, 1) == 2,
        is_special=(photometric == _CMYK and first(_INK_SET, 1) != 1)
        or (photometric == _YCBCR and compression == 1)
        or (photometric in (_WHITE_IS_ZERO, _CMYK) and 1 in extra)
        or bool(extra and (set(extra) - {0, 1, 2} or set(extra[1:]) - {0})),
    )


def _is_secondary(page: dict[int, tuple[int, ...]], main: Layout) -> bool:
    reduced_or_mask = page.get(_NEW_SUBFILE_TYPE, (0,))[0] & 0b101 or page.get(_OLD_SUBFILE_TYPE, (0,))[0] == 2
    height, width = (page.get(tag, (0,))[0] for tag in (_HEIGHT, _WIDTH))
    return bool(reduced_or_mask) or (2 * height < main.height and 2 * width < main.width)


def _read_directory(file: BinaryFile, place: int, order: str, is_big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the values of the known tags of a page, and the place of the next one."""
    word, count_format, entry_size = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    head = struct.calcsize(order + count_format)
    (num_entries,) = struct.unpack(order + count_format, _read(file, place, head))
    if num_entries > _MAX_ENTRIES:
        raise ValueError(f"{num_entries} tags")
    table = _read(file, place + head, num_entries * entry_size)
    page: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(table), entry_size):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", table, start)
        if tag in _TAGS and kind in _VALUE_FORMATS and 1 <= count <= _MAX_VALUES:
            value_format = f"{order}{count}{_VALUE_FORMATS[kind]}"
            at, size = start + 4 + struct.calcsize(order + word), struct.calcsize(value_format)
            data = table[at : start + entry_size]
            if size > len(data):
                data = _read(file, struct.unpack(order + word, data)[0], size)
            page[tag] = struct.unpack(value_format, data[:size])
    after = place + head + len(table)
    (following,) = struct.unpack(order + word, _read(file, after, struct.calcsize(order + word)))
    return page, following


def _read(file: BinaryFile, place: int, size: int) -> bytes:
    file.seek(place)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file is truncated")
    return data
