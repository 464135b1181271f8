"""The engine of compiled folders: programs that need JAX, numpy, Pillow and the entropy coder alone.

Neither the model's code nor Flax is imported. Programs that are kept for a size do not even need JAX.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.codec.engine import Engine
from cod_jax.codec.tiles import Sizes, in_tiles
from cod_jax.coding.stream import SymbolCoder
from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.errors import UserError
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.model_folder.prior_file import PRIOR_FILE, load_prior
from cod_jax.runtime.arrays import open_tensors
from cod_jax.runtime.executables import Executables
from cod_jax.runtime.folder import BINS, WEIGHTS_FILES, Description, Part, check_file, read_description
from cod_jax.runtime.kept_programs import KeptPrograms


class CompiledEngine(Engine):
    """Encodes and decodes with a compiled model, in one step; see `Engine`.

    Programs are compiled at the first picture of each size, and later found where they are kept.

    Args:
        folder: Folder written by `cod compile`.
        sha256: What names the folder, see `runtime.folder.Description`; "" where the folder is trusted.
        executables: Where to keep what is compiled for each size, of a folder that this machine made for its own
            processor; None leaves that to JAX's persistent cache.

    Attributes:
        description: The description of the folder.

    Raises:
        UserError: The path is not such a folder, or the folder is damaged, from another version, without programs for
            this machine, or not the one of the SHA-256.
    """

    def __init__(self, folder: Path, sha256: str = "", executables: Executables | None = None):
        self.description = read_description(folder, sha256)
        self.coder = _read_coder(folder, self.description)
        self.config, self.size_multiple = None, self.description.size_multiple
        self.decoding = DecodingConfig(num_steps=1)
        self.summary = f"compiled, {self.description.dtype}"
        self._sizes: dict[Part, Sizes] = {"encode": Sizes(), "decode": Sizes()}
        programs = (
            _plain_programs() if executables is None else functools.partial(KeptPrograms, executables=executables)
        )
        self._encode = programs(folder, self.description, "encode")
        self._decode = programs(folder, self.description, "decode")

    def check_decoding(self, decoding: DecodingConfig) -> None:
        """Refuse more than one step; guidance and sampler have no effect on one.

        Raises:
            UserError: There are more steps.
        """
        if decoding.num_steps != 1:
            raise UserError(
                f"compiled models decode in one step, got {decoding.num_steps} steps; leave them out, or use the model "
                "folder that this one was made from"
            )

    def bytes_per_pixel(self, decoding: DecodingConfig | None) -> float:
        """Return about how much temporary memory a pixel takes; see `Engine.bytes_per_pixel`."""
        return float(self.description.encoding_bytes_per_pixel) if decoding is None else 100.0

    def encode(self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the symbols of pictures; see `Engine.encode`."""

        def encode(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
            _, height, width, _ = pictures.shape
            symbols = self._encode(self._with_levels(pictures, levels), self._cells(height, width))
            return symbols if self.description.takes_levels else symbols[..., None]

        return self._compute("encode", encode, images_uint8)

    def decode(
        self,
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures of symbols; see `Engine.decode`."""

        def decode(some: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
            _, rows, columns, _ = some.shape
            taken = some if self.description.takes_levels else some[..., 0]
            pitch = self.description.pitch
            return self._decode(self._with_levels(taken, levels), self._cells(rows * pitch, columns * pitch))

        return self._compute("decode", decode, symbols)

    def _compute(self, part: Part, function: Callable[[Any], Any], given: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run a part of the model on pictures, or their symbols, whole or in tiles; see `tiles`."""
        of_cell = {"encode": self.size_multiple, "decode": self.size_multiple // self.description.pitch}
        of_input = of_cell[part]
        number, rows, columns, _ = given.shape
        reach = self.description.reach
        if reach is None or self._sizes[part].is_whole(number, rows // of_input, columns // of_input):
            return function(given)
        of_output = of_cell["encode" if part == "decode" else "decode"]
        return in_tiles(function, given, reach=reach[part == "decode"], of_input=of_input, of_output=of_output)

    def _with_levels(self, batch: npt.NDArray[Any], levels: npt.NDArray[np.int32]) -> Any:
        return (batch, levels) if self.description.takes_levels else batch

    def _cells(self, height: int, width: int) -> tuple[int, int]:
        return height // self.size_multiple, width // self.size_multiple


def _plain_programs() -> Any:
    from cod_jax.runtime.programs import Programs

    return Programs


def _read_coder(folder: Path, about: Description) -> SymbolCoder:
    """Return what writes and reads the files of the model.

    Raises:
        UserError: The file of the prior is damaged, or a model without a codebook has none, or one for other weights.
    """
    symbols = _read_symbols(folder, about)
    prior = None
    if PRIOR_FILE in about.files:
        check_file(folder, about, PRIOR_FILE)
        prior = load_prior(folder, symbols)
    try:
        return SymbolCoder(about.weights_fingerprint, about.pitch, symbols, prior)
    except UserError as error:
        raise UserError(f"{folder} has no {PRIOR_FILE} ({error}); make the folder again") from error


def _read_symbols(folder: Path, about: Description) -> SymbolFormat:
    """Return the symbols of the model; in older folders, the bins of a factorized bottleneck tell them."""
    if about.symbols:
        return about.symbols
    formats: set[SymbolFormat] = set()
    for name in WEIGHTS_FILES.values():
        try:
            with open_tensors(folder / name) as tensors:
                shape = tensors.shapes.get(BINS, ())
        except UserError as error:
            raise UserError(f"{folder / name} is damaged ({error}); make the folder again") from error
        if len(shape) != 2 or 0 in shape:
            raise UserError(f"{folder / name} is damaged (it has no bins [levels, channels]); make the folder again")
        formats.add(SymbolFormat(shape[1], -LARGEST_SYMBOL, LARGEST_SYMBOL, num_levels=shape[0]))
    if len(formats) > 1:
        raise UserError(f"{folder} encodes other symbols than it decodes; make the folder again")
    return formats.pop()
