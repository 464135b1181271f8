"""Files of a picture's symbols: what model wrote them, how large the picture is, and the symbols."""

import dataclasses
import functools
import hashlib
import numbers
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from cod_jax.coding import bits as bit_packing
from cod_jax.coding import container, factorized, legacy, prior
from cod_jax.coding.factorized import FactorizedPrior
from cod_jax.coding.prior import ContextTables, SymbolPrior
from cod_jax.errors import UserError

Layout = Literal["cod", "legacy-lite", "legacy-cod"]
"""The container, or one of the layouts of the published tools."""

DEFAULT_LAYOUT: Layout = "cod"


class Fingerprints(NamedTuple):
    """What names a model: 64 hex digits each.

    Attributes:
        folder: Names it with its prior: whatever decides what a file stands for.
        weights: Names it without its prior; the same where it has none.
    """

    folder: str
    weights: str

    def of_mode(self, mode: container.Mode) -> str:
        """What new files of a mode name the model by.

        Those of mode raw have no probabilities, so that they outlive a prior: whatever is fitted later, they are read.
        """
        return self.weights if mode == "raw" else self.folder

    def match(self, model: str, mode: container.Mode) -> bool:
        """Whether a file that names `model` is of this model.

        Files of mode raw may name it with its prior, as they once did.
        """
        names = {self.of_mode(mode), self.folder}
        return model in [container.model_id(name) for name in names]


@dataclasses.dataclass(frozen=True)
class SymbolCoder:
    """What a model decides about its files.

    Attributes:
        weights_fingerprint: 64 hex digits that name the model without its prior.
        pitch: Pixels per symbol in each direction.
        bits: Bits of a symbol; 0 with a factorized bottleneck.
        prior: How probable symbols are. Without one they are stored with a fixed number of bits; with a factorized
            bottleneck there always is one.
    """

    weights_fingerprint: str
    pitch: int
    bits: int
    prior: SymbolPrior | FactorizedPrior | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """64 hex digits that name the model with its prior: whatever decides what a file stands for."""
        return fingerprint_with_prior(self.weights_fingerprint, self.prior)

    @property
    def fingerprints(self) -> Fingerprints:
        """What files may name the model by."""
        return Fingerprints(self.fingerprint, self.weights_fingerprint)

    @property
    def num_levels(self) -> int:
        """Quality levels; 1 where there is no choice."""
        return len(self.prior.levels) if isinstance(self.prior, FactorizedPrior) else 1


@dataclasses.dataclass(frozen=True)
class CodedPicture:
    """What a file stands for.

    Attributes:
        height: Rows of the picture.
        width: Columns of the picture.
        indices: Symbols int32 of the grid that covers the picture, [rows, columns], or [rows, columns, channels] with a
            factorized bottleneck; a file of a published tool may have those of the floor grid.
        covers_all: Whether the grid covers the picture; else the last height % pitch rows and width % pitch columns
            have no symbols.
        level: Quality level, from 0.
    """

    height: int
    width: int
    indices: npt.NDArray[np.int32]
    covers_all: bool
    level: int = 0


class OtherModelError(ValueError):
    """A file was written by another model.

    Attributes:
        model: The first 8 hex digits of that model's fingerprint.
        mode: How the file is coded.
    """

    def __init__(self, file: container.Container, own: Fingerprints) -> None:
        super().__init__(
            f"the file was made with the model of fingerprint {file.model}, and this one has "
            f"{container.model_id(own.of_mode(file.mode))}; decompress with the model folder, its prior included, that "
            "compressed"
        )
        self.model = file.model
        self.mode: container.Mode = file.mode


def fingerprint_with_prior(weights_fingerprint: str, symbol_prior: SymbolPrior | FactorizedPrior | None) -> str:
    """Name a model with its prior: SHA-256 of both fingerprints, or that of the weights where there is no prior."""
    if symbol_prior is None:
        return weights_fingerprint
    return hashlib.sha256(f"{weights_fingerprint} {symbol_prior.fingerprint()}".encode()).hexdigest()


def checked_layout(layout: Any) -> Layout:
    """Return the name of a layout.

    Raises:
        UserError: It is unknown.
    """
    if layout not in get_args(Layout):
        raise UserError(f"there is no layout {layout!r}; choose {', '.join(get_args(Layout))}")
    return layout


def check_size(*, height: int, width: int, layout: Layout) -> None:
    """Refuse a picture that a layout cannot describe.

    Raises:
        UserError: A side is out of range.
    """
    (container if layout == "cod" else legacy).check_size(height=height, width=width)


def checked_quality(quality: Any, num_levels: int) -> int:
    """A quality, of whatever integer type, from 1 to the model's number of levels; None is the best.

    Raises:
        UserError: The model has no such quality.
    """
    if quality is None:
        return num_levels
    is_integer = not isinstance(quality, bool) and isinstance(quality, numbers.Integral)
    if not is_integer or not 1 <= int(quality) <= num_levels:
        raise UserError(
            f"the quality is {quality!r}, and this model has the qualities 1 to {num_levels}"
            if num_levels > 1
            else f"the quality is {quality!r}, and this model has one quality only; leave it out"
        )
    return int(quality)


def check_layout(layout: Layout, coder: SymbolCoder) -> None:
    """Refuse a published layout for a model without a codebook.

    Raises:
        UserError: The layout has no place for such symbols.
    """
    if layout != "cod" and isinstance(coder.prior, FactorizedPrior):
        raise UserError(f"the model has no codebook, and {layout} holds the symbols of one; use the layout cod")


def encode_picture(
    indices: npt.NDArray[np.int32],
    *,
    height: int,
    width: int,
    coder: SymbolCoder,
    level: int = 0,
    layout: Layout = DEFAULT_LAYOUT,
) -> bytes:
    """Write a picture's symbols.

    A file of mode raw names the model by its weights, any other by its weights and its prior.

    Args:
        indices: Symbols [ceil(height / pitch), ceil(width / pitch)], with a third axis for the channels of a factorized
            bottleneck.
        height: Rows of the picture.
        width: Columns of the picture.
        coder: The model's.
        level: Quality level that the symbols are of, from 0.
        layout: The container, in which the smallest of the modes is taken; or a published layout, which has one only.

    Raises:
        UserError: A side is out of range, the grid has another size, a symbol is out of range, or the layout has no
            place for such symbols.
    """
    check_layout(layout, coder)
    if layout != "cod":
        return legacy.encode_legacy(
            indices, height=height, width=width, pitch=coder.pitch, bits=coder.bits, layout=layout
        )
    container.check_size(height=height, width=width)
    shape: tuple[int, ...] = legacy.ceil_grid(height=height, width=width, pitch=coder.pitch)
    if isinstance(coder.prior, FactorizedPrior):
        shape = (*shape, coder.prior.num_channels)
    if indices.shape != shape:
        raise UserError(f"{width}x{height} pixels at pitch {coder.pitch} need {shape} symbols, not {indices.shape}")
    payloads: dict[container.Mode, bytes] = {
        mode: _encode_payload(mode, indices, coder, level) for mode in _modes(coder)
    }
    mode = min(payloads, key=lambda name: len(payloads[name]))
    model = container.model_id(coder.fingerprints.of_mode(mode))
    return container.write(container.Container(height, width, mode, model, payloads[mode]))


def decode_picture(
    data: bytes, *, coder: SymbolCoder, max_pixels: int, layout: Layout = DEFAULT_LAYOUT
) -> CodedPicture:
    """Read what `encode_picture`, or a published tool, wrote.

    Checksum, model and size are checked before anything larger than the file is allocated. A payload is read only if
    coding its symbols again in the file's mode gives the same bytes; others are refused, even where they could be
    decoded. Of the model's other modes no more is asked than that raw, where there is one, would be longer.

    Args:
        data: The whole file.
        coder: The model's.
        max_pixels: Larger pictures are refused.
        layout: How the file is laid out; published layouts do not say so themselves.

    Raises:
        OtherModelError: The file names another model.
        UserError: The data is no such file, damaged, from a newer version, or the picture is too large.
    """
    check_layout(layout, coder)
    if layout != "cod":
        parsed = legacy.decode_legacy(data, pitch=coder.pitch, bits=coder.bits, max_pixels=max_pixels, layout=layout)
        return CodedPicture(parsed.height, parsed.width, parsed.indices, parsed.covers_all)
    file = container.read(data)
    if not coder.fingerprints.match(file.model, file.mode):
        raise OtherModelError(file, coder.fingerprints)
    height, width = file.height, file.width
    if legacy.exceeds_limit(height=height, width=width, pitch=coder.pitch, max_pixels=max_pixels):
        raise UserError(
            f"{width}x{height} is more than the limit of {max_pixels} pixels; if the file is to be trusted, "
            f"{legacy.RAISE_LIMIT}"
        )
    rows, columns = legacy.ceil_grid(height=height, width=width, pitch=coder.pitch)
    level, indices = _decode_payload(file, coder, rows, columns)
    _check_payload(file, indices, coder, level)
    return CodedPicture(height, width, indices, covers_all=True, level=level)


def _modes(coder: SymbolCoder) -> list[container.Mode]:
    """The modes that a model has, that of the least work first."""
    match coder.prior:
        case None:
            return ["raw"]
        case SymbolPrior(context=None):
            return ["raw", "static"]
        case SymbolPrior():
            return ["raw", "static", "context"]
        case FactorizedPrior():
            return ["factorized"]


def _encode_payload(mode: container.Mode, indices: npt.NDArray[np.int32], coder: SymbolCoder, level: int) -> bytes:
    match mode, coder.prior:
        case "raw", None | SymbolPrior():
            return bit_packing.pack(indices, coder.bits)
        case "static", SymbolPrior() as symbol_prior:
            return prior.encode_static(symbol_prior, indices)
        case "context", SymbolPrior(context=ContextTables() as tables):
            return prior.encode_context(tables, indices)
        case "factorized", FactorizedPrior(levels=levels):
            named = bytes([level]) if len(levels) > 1 else b""
            return named + factorized.encode_factorized(levels[level], indices)
        case _:
            raise _other_mode(mode)


def _decode_payload(
    file: container.Container, coder: SymbolCoder, rows: int, columns: int
) -> tuple[int, npt.NDArray[np.int32]]:
    """Level and symbols of a file."""
    payload = file.payload
    match file.mode, coder.prior:
        case "raw", None | SymbolPrior():
            return 0, bit_packing.unpack(payload, rows * columns, coder.bits).reshape(rows, columns)
        case "static", SymbolPrior() as symbol_prior:
            return 0, prior.decode_static(symbol_prior, payload, rows=rows, columns=columns)
        case "context", SymbolPrior(context=ContextTables() as tables):
            return 0, prior.decode_context(tables, payload, rows=rows, columns=columns)
        case "factorized", FactorizedPrior(levels=levels):
            level = 0
            if len(levels) > 1:
                if not payload or payload[0] >= len(levels):
                    raise UserError("the file names a quality level that its model does not have; it is damaged")
                level, payload = payload[0], payload[1:]
            return level, factorized.decode_factorized(levels[level], payload, rows=rows, columns=columns)
        case _:
            raise _other_mode(file.mode)


def _check_payload(file: container.Container, indices: npt.NDArray[np.int32], coder: SymbolCoder, level: int) -> None:
    """Refuse a payload that no encoder makes of its symbols.

    A decoder stops after the last symbol, whatever follows, and several numbers may stand for the same symbols.
    """
    num_bytes = len(file.payload)
    not_shorter = file.mode in ("static", "context") and num_bytes >= bit_packing.packed_size(indices.size, coder.bits)
    if not_shorter or _encode_payload(file.mode, indices, coder, level) != file.payload:
        raise UserError(f"no encoder makes such a payload of {num_bytes} bytes; the file is damaged")


def _other_mode(mode: container.Mode) -> UserError:
    return UserError(f"the file is coded in mode {mode}, which its model does not have; the file is damaged")
