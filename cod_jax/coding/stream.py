"""Files of a picture's symbols: the model that wrote them, the size of the picture, and the symbols."""

import dataclasses
import functools
import numbers
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from cod_jax.coding import container, legacy
from cod_jax.coding.container import DEFAULT_LAYOUT, Layout
from cod_jax.coding.entropy import EntropyModel, Prior, entropy_models
from cod_jax.coding.fingerprints import Fingerprints, OtherModelError, fingerprint_with_prior
from cod_jax.coding.sizes import RAISE_LIMIT, ceil_grid, check_grid, exceeds_limit
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.coding.walk import Walk, most_steps, read_walk, write_walk
from cod_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CodedPicture:
    """The content of a file.

    Attributes:
        height: Rows of the picture.
        width: Columns of the picture.
        symbols: Symbols int32 [rows, columns, C] of the grid that covers the picture; a file of a published tool may
            have those of the floor grid.
        covers_all: Whether the grid covers the picture; else the last height % pitch rows and width % pitch columns
            have no symbols.
        level: Quality level, from 0.
        mode: How the symbols are coded.
        walk: The steps that lead on from the symbols, in a file of mode diffc.
    """

    height: int
    width: int
    symbols: npt.NDArray[np.int32]
    covers_all: bool
    level: int = 0
    mode: container.Mode = "raw"
    walk: Walk | None = None


@dataclasses.dataclass(frozen=True)
class SymbolCoder:
    """Writes and reads the files of a model.

    Attributes:
        weights_fingerprint: 64 hex digits that name the model without its prior.
        pitch: Pixels per symbol in each direction.
        symbols: The symbols of the model.
        prior: The tables of its entropy models; None where it has none.
        models: The entropy models, the one with the least work first.

    Raises:
        UserError: Nothing codes the symbols, or the prior cannot be used; see `entropy_models`.
    """

    weights_fingerprint: str
    pitch: int
    symbols: SymbolFormat
    prior: Prior | None = None
    models: tuple[EntropyModel, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", entropy_models(self.symbols, self.prior))

    @functools.cached_property
    def fingerprints(self) -> Fingerprints:
        """Fingerprints by which files may name the model."""
        return Fingerprints(fingerprint_with_prior(self.weights_fingerprint, self.prior), self.weights_fingerprint)

    @property
    def fingerprint(self) -> str:
        """64 hex digits that name the model with its prior: all that decides what a file stands for."""
        return self.fingerprints.folder

    @property
    def num_levels(self) -> int:
        """Quality levels of the model; 1 where there is no choice."""
        return self.symbols.num_levels

    def check_layout(self, layout: Layout) -> None:
        """Refuse a published layout for a model without a codebook.

        Raises:
            UserError: The layout has no place for such symbols.
        """
        if layout != "cod":
            self._bits_in(layout)

    def _bits_in(self, layout: legacy.Layout) -> int:
        """Return the bits of a symbol in a published layout, which has symbols of a fixed length only."""
        if self.symbols.bits is None:
            raise UserError(f"the model has no codebook, and {layout} holds the symbols of one; use the layout cod")
        return self.symbols.bits

    def encode(
        self,
        symbols: npt.NDArray[np.int32],
        *,
        height: int,
        width: int,
        level: int = 0,
        layout: Layout = DEFAULT_LAYOUT,
        steps: Walk | None = None,
    ) -> bytes:
        """Write a picture's symbols as a file.

        A file of mode raw names the model by its weights, any other by its weights and its prior.

        Args:
            symbols: Symbols [ceil(height / pitch), ceil(width / pitch), C].
            height: Rows of the picture.
            width: Columns of the picture.
            level: Quality level that the symbols are of, from 0.
            layout: The container, in which the shortest payload of the model's entropy models is taken, the first of
                equal ones; or a published layout, which has one only.
            steps: Steps that lead on from the symbols, which make a file of mode diffc; for the container.

        Raises:
            UserError: A side is out of range, the grid has another size, a symbol is out of range, or the layout has
                no place for such symbols.
        """
        if layout != "cod":
            bits = self._bits_in(layout)
            return legacy.encode_legacy(symbols, height=height, width=width, pitch=self.pitch, bits=bits, layout=layout)
        container.check_size(height=height, width=width)
        channels = self.symbols.num_channels
        check_grid(symbols.shape, height=height, width=width, pitch=self.pitch, num_channels=channels)
        return self.file_of(*self.shortest(symbols, level), height=height, width=width, steps=steps)

    def shortest(self, symbols: npt.NDArray[np.int32], level: int) -> tuple[container.Mode, bytes]:
        """Return the mode whose payload of symbols is the shortest, the first of equal ones, and that payload.

        Raises:
            UserError: A symbol is out of range.
        """
        payloads = [_payload(model, symbols, level) for model in self.models]
        payload, model = min(zip(payloads, self.models, strict=True), key=lambda item: len(item[0]))
        return model.mode, payload

    def file_of(
        self, mode: container.Mode, payload: bytes, *, height: int, width: int, steps: Walk | None = None
    ) -> bytes:
        """Write a file of what `shortest` returned, with steps as for `encode`."""
        if steps is not None:
            mode, payload = "diffc", write_walk(mode, payload, steps)
        name = container.model_id(self.fingerprints.of_mode(mode))
        return container.write(container.Container(height, width, mode, name, payload))

    def decode(self, data: bytes, *, max_pixels: int, layout: Layout = DEFAULT_LAYOUT) -> CodedPicture:
        """Read a file that `encode`, or a published tool, wrote.

        Checksum, model and size are checked before anything larger than the file is allocated. A payload is read only
        if coding its symbols again in the file's mode gives the same bytes; others are refused, even where they could
        be decoded. Of the model's entropy models before that one no more is asked than that those whose payloads have
        a fixed length would be longer.

        Args:
            data: The whole file.
            max_pixels: Larger pictures are refused.
            layout: How the file is laid out; published layouts do not say so themselves.

        Raises:
            OtherModelError: The file names another model.
            UserError: The data is not such a file, damaged, from a newer version, or the picture is too large.
        """
        if layout != "cod":
            bits = self._bits_in(layout)
            parsed = legacy.decode_legacy(data, pitch=self.pitch, bits=bits, max_pixels=max_pixels, layout=layout)
            return CodedPicture(parsed.height, parsed.width, parsed.symbols, parsed.covers_all)
        file = container.read(data)
        if not self.fingerprints.match(file.model, file.mode):
            raise OtherModelError(file, self.fingerprints)
        height, width = file.height, file.width
        if exceeds_limit(height=height, width=width, pitch=self.pitch, max_pixels=max_pixels):
            raise UserError(
                f"{width}x{height} is more than the limit of {max_pixels} pixels; if the file is to be trusted, "
                f"{RAISE_LIMIT}"
            )
        steps = None
        if file.mode == "diffc":
            mode, payload, steps = read_walk(file.payload)
            most = most_steps(height=height, width=width, max_pixels=max_pixels)
            if len(steps.grades) > most:
                raise UserError(
                    f"expected at most {most} steps for {width}x{height} pixels, got {len(steps.grades)}, which would "
                    f"take very long; if the file is to be trusted, {RAISE_LIMIT}"
                )
            file = dataclasses.replace(file, mode=mode, payload=payload)
        symbols, level = self._decode_payload(file)
        return CodedPicture(height, width, symbols, covers_all=True, level=level, mode=file.mode, walk=steps)

    def symbol_bits(self, picture: CodedPicture) -> npt.NDArray[np.float64]:
        """Return the bits that each symbol [h, w, C] takes in the file of a picture.

        Args:
            picture: What `decode` returned.

        Raises:
            UserError: The symbols are coded by an entropy model of another package, which does not say so.
        """
        model = next(model for model in self.models if model.mode == picture.mode)
        bits = model.symbol_bits(picture.symbols, picture.level)
        if bits is None:
            name = type(model).__name__
            raise UserError(f"the entropy model {name} does not tell the bits of a symbol; define {name}.symbol_bits")
        return bits

    def _decode_payload(self, file: container.Container) -> tuple[npt.NDArray[np.int32], int]:
        """Return symbols and level of a file.

        A decoder stops after the last symbol and does not see what follows, and several numbers may stand for the same
        symbols. So a payload that no encoder makes of its symbols is refused.
        """
        rows, columns = ceil_grid(height=file.height, width=file.width, pitch=self.pitch)
        modes: list[container.Mode] = [model.mode for model in self.models]
        if file.mode not in modes:
            raise UserError(f"the file is coded in mode {file.mode}, which its model does not have; it is damaged")
        place = modes.index(file.mode)
        least = self.models[place].least_bytes(rows=rows, columns=columns)
        if len(file.payload) < least:
            raise UserError(
                f"{len(file.payload)} bytes cannot stand for the symbols of {file.width}x{file.height} pixels, which "
                f"take {least} at least; the file is damaged"
            )
        model = self.models[place]
        symbols, level, again = model.decode_and_encode(file.payload, rows=rows, columns=columns)
        shorter = [model.payload_bytes(rows=rows, columns=columns) for model in self.models[:place]]
        if (
            any(length is not None and length <= len(file.payload) for length in shorter)
            or not self._is_picture(symbols, level, rows, columns)
            or _payload(model, symbols, level, again) != file.payload
        ):
            raise UserError(f"no encoder makes such a payload of {len(file.payload)} bytes; the file is damaged")
        return symbols, level

    def _is_picture(self, symbols: npt.NDArray[np.int32], level: int, rows: int, columns: int) -> bool:
        """Return whether an entropy model gave symbols and a level that the model has."""
        expected = self.symbols
        return (
            symbols.shape == (rows, columns, expected.num_channels)
            and symbols.dtype == np.int32
            and bool(expected.first <= symbols.min() and symbols.max() <= expected.last)
            and 0 <= level < expected.num_levels
        )


def _payload(model: EntropyModel, symbols: npt.NDArray[np.int32], level: int, encoded: bytes | None = None) -> bytes:
    """Return the payload of symbols; `encoded` is what the model's `encode` gives for them, where that is known."""
    rows, columns, _ = symbols.shape
    encoded = model.encode(symbols, level) if encoded is None else encoded
    return encoded.ljust(model.least_bytes(rows=rows, columns=columns), b"\0")


def checked_layout(layout: Any) -> Layout:
    """Return the name of a layout.

    Raises:
        UserError: It is unknown.
    """
    if layout not in get_args(Layout):
        raise UserError(f"expected a layout {', '.join(get_args(Layout))}, got {layout!r}")
    return layout


def check_size(*, height: int, width: int, layout: Layout) -> None:
    """Refuse a picture that a layout cannot describe.

    Raises:
        UserError: A side is out of range.
    """
    (container if layout == "cod" else legacy).check_size(height=height, width=width)


def checked_quality(quality: Any, num_levels: int) -> int:
    """Return a quality as an int from 1 to the model's number of levels; None is the best.

    Args:
        quality: An integer of any type.
        num_levels: Quality levels of the model.

    Raises:
        UserError: The model has no such quality.
    """
    if quality is None:
        return num_levels
    is_integer = not isinstance(quality, bool) and isinstance(quality, numbers.Integral)
    if not is_integer or not 1 <= int(quality) <= num_levels:
        raise UserError(
            f"quality must be between 1 and {num_levels} for this model, got {quality!r}"
            if num_levels > 1
            else f"this model has one quality level only, got quality {quality!r}; leave the quality out"
        )
    return int(quality)
