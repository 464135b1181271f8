"""The container of `.cod` files; docs/bitstream.md describes it byte by byte.

    magic  version | mode | wide  model    sides       payload  checksum
    1      1                      4 bytes  3 or 6      any      3 bytes

Nothing here depends on a model: a file can be read, and damage found, without one.
"""

import dataclasses
from typing import Literal, get_args

from cod_jax.coding import checksum
from cod_jax.coding.other_formats import explain_picture
from cod_jax.errors import UserError

# Files hold the place of their mode in this list; "custom" is coded by the entropy model that the model's prior names,
# "diffc" by another mode and the steps of `walk`.
Mode = Literal["raw", "static", "context", "factorized", "custom", "predictive", "diffc"]

Layout = Literal["cod", "legacy-lite", "legacy-cod"]
"""This container, or one of the layouts of the published tools."""

DEFAULT_LAYOUT: Layout = "cod"

MAGIC = 0xCD
VERSION = 1
MODEL_BYTES = 4
MODEL_DIGITS = 2 * MODEL_BYTES
# Sides minus one of 12 bits each fill 3 bytes, wide ones of 24 bits 6.
NARROW_BITS, WIDE_BITS = 12, 24
MAX_SIDE = 2**WIDE_BITS
# 32 megabytes: 16 bits per pixel of the largest picture that is taken by default, where files have less than one.
MAX_BYTES = 2**25
MIN_BYTES = 2 + MODEL_BYTES + 2 * NARROW_BITS // 8 + checksum.NUM_BYTES
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclasses.dataclass(frozen=True)
class Container:
    """The content of a file.

    Attributes:
        height: Rows of the picture, 1 to 2^24.
        width: Columns of the picture, 1 to 2^24.
        mode: How the payload is coded.
        model: The first 8 hex digits of a fingerprint of the model that wrote it.
        payload: The coded symbols.
    """

    height: int
    width: int
    mode: Mode
    model: str
    payload: bytes


def model_id(fingerprint: str) -> str:
    """Return the digits of a model's fingerprint that files hold."""
    return fingerprint[:MODEL_DIGITS]


def check_size(*, height: int, width: int) -> None:
    """Refuse a picture that the container cannot describe.

    Raises:
        UserError: A side is below 1 or above 2^24.
    """
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UserError(
            f"expected sides of 1 to {MAX_SIDE} pixels for a .cod file, got {width}x{height}; make it smaller"
        )


def write(container: Container) -> bytes:
    """Write a file, which is 12 bytes longer than the payload, or 15 if a side is above 4096.

    Raises:
        UserError: A side is out of range, or the file would be longer than `MAX_BYTES`.
    """
    height, width = container.height, container.width
    check_size(height=height, width=width)
    wide = max(height, width) > 2**NARROW_BITS
    bits = WIDE_BITS if wide else NARROW_BITS
    data = b"".join(
        (
            bytes((MAGIC, VERSION << 4 | MODES.index(container.mode) << 1 | wide)),
            bytes.fromhex(model_id(container.model)),
            ((height - 1) << bits | (width - 1)).to_bytes(2 * bits // 8, "big"),
            container.payload,
        )
    )
    if len(data) + checksum.NUM_BYTES > MAX_BYTES:
        raise UserError(
            f"a payload of {len(container.payload)} bytes makes a file above the limit of {MAX_BYTES}; make the "
            "picture smaller"
        )
    return data + checksum.crc24(data)


def read(data: bytes) -> Container:
    """Read a file; every file in which one byte was changed is refused.

    Nothing larger than the file itself is allocated.

    Args:
        data: The whole file; of one that is too long, `MAX_BYTES` + 1 bytes are enough to refuse it.

    Raises:
        UserError: The data is not a `.cod` file, cut off, damaged, too long, or from a version not known here.
    """
    if data[:1] != bytes((MAGIC,)):
        raise UserError(explain_not_a_container(data))
    if len(data) < MIN_BYTES:
        raise UserError(f"{len(data)} bytes are too short for a .cod file; it is cut off; copy or download it again")
    if len(data) > MAX_BYTES:
        raise UserError(
            f"expected a .cod file of at most {MAX_BYTES} bytes, got a longer one; check that it is the right file"
        )
    if checksum.crc24(data[: -checksum.NUM_BYTES]) != data[-checksum.NUM_BYTES :]:
        raise UserError(
            "its checksum does not fit its content, so the file is damaged, cut off, or not a .cod file of this "
            "version; copy or download it again"
        )
    version, mode, wide = data[1] >> 4, data[1] >> 1 & 7, data[1] & 1
    if version != VERSION:
        raise UserError(
            f"it has version {version} of the .cod format and this cod_jax reads version {VERSION}; use a newer cod_jax"
        )
    if mode >= len(MODES):
        raise UserError(f"it is coded in mode {mode}, which this cod_jax does not know; use a newer one")
    bits = WIDE_BITS if wide else NARROW_BITS
    sides_at = 2 + MODEL_BYTES
    payload_at = sides_at + 2 * bits // 8
    if len(data) < payload_at + checksum.NUM_BYTES:
        raise UserError(f"{len(data)} bytes are too short for a .cod file with wide sides; get the file again")
    sides = int.from_bytes(data[sides_at:payload_at], "big")
    height, width = (sides >> bits) + 1, (sides & (1 << bits) - 1) + 1
    if wide and max(height, width) <= 2**NARROW_BITS:
        raise UserError(f"its sides {width}x{height} are stored with more bytes than they need; get the file again")
    return Container(
        height=height,
        width=width,
        mode=MODES[mode],
        model=data[2:sides_at].hex(),
        payload=data[payload_at : -checksum.NUM_BYTES],
    )


def explain_not_a_container(data: bytes) -> str:
    """Say why data that does not begin like a `.cod` file is refused.

    Args:
        data: A file, or its first 16 bytes.
    """
    if not data:
        return "the file is empty; copy or download it again"
    return explain_picture(data) or (
        "this is not a .cod file; if it comes from a published CoD tool, name its layout: --format legacy-lite or "
        'legacy-cod (in Python layout="legacy-lite")'
    )
