"""The published layouts of `.cod` files: two sides as little-endian uint16, then packed symbols.

`legacy-lite`, of the CoD-Lite tool, has the width first; `legacy-cod`, of the CoD tools, the height. Nothing in a file
tells them apart. (The CoD tools themselves read the sides in the other order than they write them, and so exchange rows
and columns of pictures that are not square. Here they are read as written.)

There is no magic number, no model identity and no checksum: only the length can be checked. The published tools keep
floor(height / pitch) x floor(width / pitch) symbols and lose the rest of the picture; files written here keep
ceil(height / pitch) x ceil(width / pitch) and lose nothing. For pictures whose sides are multiples of the pitch the two
are the same.
"""

import dataclasses
import struct
from typing import Literal

import numpy as np
import numpy.typing as npt

from cod_jax.coding import bits as bit_packing
from cod_jax.coding.other_formats import explain_picture
from cod_jax.coding.sizes import RAISE_LIMIT, ceil_grid, check_grid, exceeds_limit
from cod_jax.coding.symbols import MAX_BITS
from cod_jax.errors import UserError

Layout = Literal["legacy-lite", "legacy-cod"]

HEADER_BYTES = 4
MAX_SIDE = 2**16 - 1
# The pitches that models can have.
PITCHES = (4, 8, 16, 32, 64, 128)
_HEADER = struct.Struct("<HH")


@dataclasses.dataclass(frozen=True)
class LegacyHeader:
    """The header of a file, and the length of its payload.

    Attributes:
        height: Rows of the picture.
        width: Columns of the picture.
        payload_bytes: Bytes after the header.
    """

    height: int
    width: int
    payload_bytes: int


@dataclasses.dataclass(frozen=True)
class LegacyPicture:
    """A parsed file.

    Attributes:
        height: Rows of the picture.
        width: Columns of the picture.
        symbols: Symbols int32 [rows, columns, 1] of the ceil grid, or of the published floor grid.
        covers_all: Whether the grid is the ceil grid; else the last height % pitch rows and width % pitch columns of
            the picture have no symbols.
    """

    height: int
    width: int
    symbols: npt.NDArray[np.int32]
    covers_all: bool


def check_size(*, height: int, width: int) -> None:
    """Refuse a picture that the header cannot describe.

    Raises:
        UserError: A side is below 1 or above 65535.
    """
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UserError(
            f"expected sides of 1 to {MAX_SIDE} pixels for this layout, got {width}x{height}; make it smaller"
        )


def encode_legacy(
    symbols: npt.NDArray[np.integer],
    *,
    height: int,
    width: int,
    pitch: int,
    bits: int,
    layout: Layout = "legacy-lite",
) -> bytes:
    """Write a picture's symbols.

    Args:
        symbols: Symbols [ceil(height / pitch), ceil(width / pitch), 1].
        height: Rows of the picture, 1 to 65535.
        width: Columns of the picture, 1 to 65535.
        pitch: Pixels per symbol in each direction.
        bits: Bits of a symbol.
        layout: Which of the published tools will read the file.

    Raises:
        UserError: A side is out of range, the grid has another size, or a symbol does not fit.
    """
    check_size(height=height, width=width)
    check_grid(symbols.shape, height=height, width=width, pitch=pitch, num_channels=1)
    sides = (width, height) if layout == "legacy-lite" else (height, width)
    return _HEADER.pack(*sides) + bit_packing.pack(symbols, bits)


def decode_legacy_header(data: bytes, layout: Layout = "legacy-lite") -> LegacyHeader:
    """Read the header alone, without knowing the model.

    Args:
        data: The whole file.
        layout: Which of the published tools it was written for.

    Raises:
        UserError: The data is shorter than a header and one byte, or a side is zero.
    """
    if len(data) <= HEADER_BYTES:
        raise UserError(
            f"{len(data)} bytes are too short for a .cod file; it is empty or cut off; copy or download it again"
        )
    first, second = _HEADER.unpack_from(data)
    width, height = (first, second) if layout == "legacy-lite" else (second, first)
    if width == 0 or height == 0:
        raise UserError(
            explain_picture(data)
            or f"its header gives {width}x{height} pixels; this is a damaged .cod file, or not a .cod file"
        )
    return LegacyHeader(height=height, width=width, payload_bytes=len(data) - HEADER_BYTES)


def check_header(data: bytes, header: LegacyHeader) -> None:
    """Refuse a file that no model can have written, of any pitch and codebook.

    Args:
        data: The whole file.
        header: What it says about itself.

    Raises:
        UserError: The length of the file does not go with the size of the picture.
    """
    height, width = header.height, header.width
    grids = {ceil_grid(height=height, width=width, pitch=pitch) for pitch in PITCHES}
    grids |= {(height // pitch, width // pitch) for pitch in PITCHES}
    lengths = {
        bit_packing.packed_size(rows * columns, bits) for rows, columns in grids for bits in range(1, MAX_BITS + 1)
    }
    if header.payload_bytes not in lengths:
        raise UserError(
            explain_picture(data)
            or f"its header gives {width}x{height} pixels, which no model stores in {len(data)} bytes; this is a "
            "damaged .cod file, or not a .cod file"
        )


def decode_legacy(
    data: bytes, *, pitch: int, bits: int, max_pixels: int, layout: Layout = "legacy-lite"
) -> LegacyPicture:
    """Read a file written by `encode_legacy` or by a published tool.

    The length of the payload tells the grids apart. Where both take the same number of bytes, the ceil grid is meant.
    Nothing is allocated before the length and the size of the picture are checked.

    Args:
        data: The whole file.
        pitch: Pixels per symbol of the model that wrote it.
        bits: Bits of a symbol of that model.
        max_pixels: Larger pictures are refused.
        layout: Which of the published tools it was written for.

    Raises:
        UserError: The data is cut off, too long, damaged, or from a model with another pitch or codebook, or the
            picture is too large.
    """
    header = decode_legacy_header(data, layout)
    height, width = header.height, header.width
    rows, columns = ceil_grid(height=height, width=width, pitch=pitch)
    floor_rows, floor_columns = height // pitch, width // pitch
    expected = bit_packing.packed_size(rows * columns, bits)
    published = bit_packing.packed_size(floor_rows * floor_columns, bits)
    covers_all = header.payload_bytes == expected
    if not covers_all:
        if header.payload_bytes != published:
            length = f"{expected} byte{'' if expected == 1 else 's'}"
            raise UserError(
                explain_picture(data)
                or f"{width}x{height} pixels take {length} after the header with this model, but there are "
                f"{header.payload_bytes}; the file is cut off, damaged, or was made with another model"
            )
        rows, columns = floor_rows, floor_columns
    if exceeds_limit(height=height, width=width, pitch=pitch, max_pixels=max_pixels):
        raise UserError(
            f"{width}x{height} is more than the limit of {max_pixels} pixels; the file is damaged, or was made with a "
            f"higher limit: {RAISE_LIMIT}"
        )
    symbols = bit_packing.unpack(data[HEADER_BYTES:], rows * columns, bits).reshape(rows, columns, 1)
    return LegacyPicture(height=height, width=width, symbols=symbols, covers_all=covers_all)
