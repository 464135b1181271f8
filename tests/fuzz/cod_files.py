"""Reads `.cod` files as a fuzzer makes them.

An input is a fault if it raises anything but a `UserError`, gives symbols that the model does not have, or is read
without being what is written for what it gives.
"""

from typing import Any

from cod_jax.coding import bits as bit_packing
from cod_jax.coding import container, legacy, sizes, stream
from cod_jax.errors import UserError
from tests.fuzz.target import Target
from tests.golden.folder import BITS, FOLDER, PITCH, golden_channel_coder, golden_coder

MAX_PIXELS = 2**18


def make_target() -> Target:
    """Return the target of `.cod` files in all layouts."""
    coder = golden_coder()
    coders = (coder, golden_channel_coder("factorized"), golden_channel_coder("predictive"))

    def parse(data: bytes) -> None:
        check_container(data)
        for each in coders:
            file = repaired(data, each)
            check_container(file)
            check_picture(file, each)
        for layout in ("legacy-lite", "legacy-cod"):
            check_legacy(data, layout, coder)

    return Target([file.read_bytes() for file in sorted(FOLDER.glob("*.cod"))], parse)


def repaired(data: bytes, coder: stream.SymbolCoder) -> bytes:
    """Put in what no fuzzer guesses: magic number, model and checksum."""
    number = data[1] >> 1 & 7 if len(data) > 1 else 0
    mode = container.MODES[number] if number < len(container.MODES) else "raw"
    model = bytes.fromhex(container.model_id(coder.fingerprints.of_mode(mode)))
    content = bytes([container.MAGIC]) + data[1:2] + model + data[6 : -container.checksum.NUM_BYTES]
    return content + container.checksum.crc24(content)


def check_container(data: bytes) -> None:
    """Check that a file that is read is written the same."""
    try:
        file = container.read(data)
    except UserError:
        return
    require(container.write(file) == data, "a file was read that is not written so")


def check_picture(data: bytes, coder: stream.SymbolCoder) -> None:
    """Check that the symbols are of the model, and give the same bytes when written again, or fewer in another mode."""
    try:
        picture = coder.decode(data, max_pixels=MAX_PIXELS)
    except UserError:
        return
    grid = sizes.ceil_grid(height=picture.height, width=picture.width, pitch=PITCH)
    require(picture.symbols.shape[:2] == grid, "the symbols do not cover the picture")
    first, last = coder.symbols.first, coder.symbols.last
    require(first <= picture.symbols.min() <= picture.symbols.max() <= last, "a symbol is not of the model")
    size: dict[str, Any] = {"height": picture.height, "width": picture.width, "level": picture.level}
    again = coder.encode(picture.symbols, **size, steps=picture.walk)
    same_mode = coder.decode(again, max_pixels=MAX_PIXELS).mode == picture.mode
    require(again == data if same_mode else len(again) <= len(data), "a picture was read that is not written so")


def check_legacy(data: bytes, layout: legacy.Layout, coder: stream.SymbolCoder) -> None:
    """Check published layouts as `check_picture` does; their floor grid is read only."""
    try:
        picture = coder.decode(data, max_pixels=MAX_PIXELS, layout=layout)
    except UserError:
        return
    packed = bit_packing.pack(picture.symbols, BITS)
    require(packed == data[legacy.HEADER_BYTES :], "symbols were read that are not written so")
    if picture.covers_all:
        again = coder.encode(picture.symbols, height=picture.height, width=picture.width, layout=layout)
        require(again == data, "a picture was read that is not written so")


def require(holds: bool, otherwise: str) -> None:
    """Stop the run where something does not hold."""
    if not holds:
        raise RuntimeError(otherwise)
