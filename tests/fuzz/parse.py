"""Coverage-guided fuzzing of what reads strangers' files: `python -m tests.fuzz.parse FOLDER [options of libFuzzer]`.

FOLDER collects the inputs that reach new code; it may begin with some. The run ends when an input raises anything but a
`ValueError`, or gives symbols that the model does not have. `-max_total_time=60` ends it after a minute.
"""

import sys

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["cod_jax.coding"]):  # pyright: ignore[reportAttributeAccessIssue]
    from cod_jax.coding import container, legacy, stream

from tests.golden.folder import BITS, PITCH, golden_coder, golden_factorized_coder

MAX_PIXELS = 2**18


def make_target():
    """Return the function that is called with each input.

    It also gets the input with a right checksum and model, since no fuzzer guesses these.
    """
    coder, factorized_coder = golden_coder(), golden_factorized_coder()

    def parse(data: bytes) -> None:
        read_as_it_is(data)
        if len(data) < 2:
            return
        content = bytes([container.MAGIC]) + data
        for some in (coder, factorized_coder):
            named = content[:2] + bytes.fromhex(some.fingerprint[: container.MODEL_DIGITS]) + content[6:]
            check(named + container.checksum.crc24(named), "cod", some)
        for layout in ("legacy-lite", "legacy-cod"):
            check(data, layout, coder)

    def read_as_it_is(data: bytes) -> None:
        try:
            file = container.read(data)
        except ValueError:
            return
        if container.write(file) != data:
            raise RuntimeError("a file was read that is not written so")

    def check(data: bytes, layout: stream.Layout, coder: stream.SymbolCoder) -> None:
        try:
            picture = stream.decode_picture(data, coder=coder, max_pixels=MAX_PIXELS, layout=layout)
        except ValueError:
            return
        grid = legacy.ceil_grid(height=picture.height, width=picture.width, pitch=PITCH)
        if picture.covers_all and picture.indices.shape[:2] != grid:
            raise RuntimeError(f"{picture.width}x{picture.height} pixels have symbols {picture.indices.shape}")
        if coder.bits and picture.indices.size and not 0 <= picture.indices.min() <= picture.indices.max() < 2**BITS:
            raise RuntimeError("there are symbols that the model does not have")

    return parse


if __name__ == "__main__":
    atheris.Setup(sys.argv, make_target())
    atheris.Fuzz()
