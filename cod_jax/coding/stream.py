"""Files of a picture's symbols: what model wrote them, how large the picture is, and the symbols."""

import dataclasses
import functools
import hashlib
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cod_jax.coding import bits as bit_packing
from cod_jax.coding import container, factorized, legacy, prior
from cod_jax.coding.factorized import FactorizedPrior
from cod_jax.coding.prior import SymbolPrior

Layout = Literal["cod", "legacy-lite", "legacy-cod"]
"""The container, or one of the layouts of the published tools."""

DEFAULT_LAYOUT: Layout = "cod"


@dataclasses.dataclass(frozen=True)
class SymbolCoder:
    """What a model decides about its files.

    Attributes:
        weights_fingerprint: 64 hex digits that name the model without its prior.
        pitch: pixels per symbol in each direction.
        bits: bits of a symbol; 0 with a factorized bottleneck.
        prior: how probable symbols are. Without one they are stored with a fixed number of bits; with a factorized
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
    def num_levels(self) -> int:
        """Quality levels; 1 where there is no choice."""
        return len(self.prior.levels) if isinstance(self.prior, FactorizedPrior) else 1


@dataclasses.dataclass(frozen=True)
class CodedPicture:
    """What a file stands for.

    Attributes:
        height: rows of the picture.
        width: columns of the picture.
        indices: symbols int32 of the grid that covers the picture, [rows, columns], or [rows, columns, channels] with a
            factorized bottleneck; a file of a published tool may have those of the floor grid.
        covers_all: whether the grid covers the picture; else the last height % pitch rows and width % pitch columns
            have no symbols.
        level: quality level, from 0.
    """

    height: int
    width: int
    indices: npt.NDArray[np.int32]
    covers_all: bool
    level: int = 0


class OtherModelError(ValueError):
    """A file was written by another model.

    Attributes:
        model: the first 8 hex digits of that model's fingerprint.
    """

    def __init__(self, model: str, own: str) -> None:
        super().__init__(
            f"the file was made with the model of fingerprint {model}, and this one has {own}; decompress with the "
            "model folder, its prior included, that compressed"
        )
        self.model = model


def fingerprint_with_prior(weights_fingerprint: str, symbol_prior: SymbolPrior | FactorizedPrior | None) -> str:
    """Name a model with its prior: SHA-256 of both fingerprints, or that of the weights where there is no prior."""
    if symbol_prior is None:
        return weights_fingerprint
    return hashlib.sha256(f"{weights_fingerprint} {symbol_prior.fingerprint()}".encode()).hexdigest()


def checked_layout(layout: Any) -> Layout:
    """Return the name of a layout.

    Raises:
        ValueError: it is unknown.
    """
    if layout not in get_args(Layout):
        raise ValueError(f"there is no layout {layout!r}; choose {', '.join(get_args(Layout))}")
    return layout


def check_size(*, height: int, width: int, layout: Layout) -> None:
    """Refuse a picture that a layout cannot describe.

    Raises:
        ValueError: a side is out of range.
    """
    (container if layout == "cod" else legacy).check_size(height=height, width=width)


def check_layout(layout: Layout, coder: SymbolCoder) -> None:
    """Refuse a published layout for a model without a codebook.

    Raises:
        ValueError: the layout has no place for such symbols.
    """
    if layout != "cod" and isinstance(coder.prior, FactorizedPrior):
        raise ValueError(f"the model has no codebook, and {layout} holds the symbols of one; use the layout cod")


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

    Args:
        indices: symbols [ceil(height / pitch), ceil(width / pitch)], with a third axis for the channels of a factorized
            bottleneck.
        height: rows of the picture.
        width: columns of the picture.
        coder: the model's.
        level: quality level that the symbols are of, from 0.
        layout: the container, in which the smallest of the modes is taken; or a published layout, which has one only.

    Raises:
        ValueError: a side is out of range, the grid has another size, a symbol is out of range, or the layout has no
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
        raise ValueError(f"{width}x{height} pixels at pitch {coder.pitch} need {shape} symbols, not {indices.shape}")
    payloads = _encode_payloads(indices, coder, level)
    mode = min(payloads, key=lambda name: len(payloads[name]))
    model = container.model_id(coder.fingerprint)
    return container.write(container.Container(height, width, mode, model, payloads[mode]))


def decode_picture(
    data: bytes, *, coder: SymbolCoder, max_pixels: int, layout: Layout = DEFAULT_LAYOUT
) -> CodedPicture:
    """Read what `encode_picture`, or a published tool, wrote.

    Checksum, model, size and length are checked before anything larger than the file is allocated.

    Args:
        data: the whole file.
        coder: the model's.
        max_pixels: larger pictures are refused.
        layout: how the file is laid out; published layouts do not say so themselves.

    Raises:
        OtherModelError: the file names another model.
        ValueError: the data is no such file, damaged, from a newer version, or the picture is too large.
    """
    check_layout(layout, coder)
    if layout != "cod":
        parsed = legacy.decode_legacy(data, pitch=coder.pitch, bits=coder.bits, max_pixels=max_pixels, layout=layout)
        return CodedPicture(parsed.height, parsed.width, parsed.indices, parsed.covers_all)
    file = container.read(data)
    _check_model(file, coder)
    height, width = file.height, file.width
    if legacy.exceeds_limit(height=height, width=width, pitch=coder.pitch, max_pixels=max_pixels):
        raise ValueError(
            f"{width}x{height} is more than the limit of {max_pixels} pixels; if the file is to be trusted, "
            f"{legacy.RAISE_LIMIT}"
        )
    rows, columns = legacy.ceil_grid(height=height, width=width, pitch=coder.pitch)
    if isinstance(coder.prior, FactorizedPrior):
        level, indices = _decode_levels(file, coder.prior, rows, columns)
    else:
        level, indices = 0, _decode_payload(file, coder, rows, columns)
    return CodedPicture(height, width, indices, covers_all=True, level=level)


def _encode_payloads(indices: npt.NDArray[np.int32], coder: SymbolCoder, level: int) -> dict[container.Mode, bytes]:
    """Code symbols in each mode that the model has, that of the least work first."""
    if isinstance(coder.prior, FactorizedPrior):
        named = bytes([level]) if coder.num_levels > 1 else b""
        return {"factorized": named + factorized.encode_factorized(coder.prior.levels[level], indices)}
    payloads: dict[container.Mode, bytes] = {"raw": bit_packing.pack(indices, coder.bits)}
    if coder.prior:
        payloads["static"] = prior.encode_static(coder.prior, indices)
        if coder.prior.context:
            payloads["context"] = prior.encode_context(coder.prior.context, indices)
    return payloads


def _check_model(file: container.Container, coder: SymbolCoder) -> None:
    own = [container.model_id(coder.fingerprint)]
    if file.mode == "raw":
        # Written before the prior was fitted; what has no probabilities does not depend on them.
        own.append(container.model_id(coder.weights_fingerprint))
    if file.model not in own:
        raise OtherModelError(file.model, own[0])


def _decode_payload(file: container.Container, coder: SymbolCoder, rows: int, columns: int) -> npt.NDArray[np.int32]:
    raw_bytes = bit_packing.packed_size(rows * columns, coder.bits)
    if file.mode == "raw":
        return bit_packing.unpack(file.payload, rows * columns, coder.bits).reshape(rows, columns)
    if len(file.payload) >= raw_bytes:
        raise ValueError(f"no encoder makes such a payload of {len(file.payload)} bytes; the file is damaged")
    _check_end(file.payload)
    symbol_prior = coder.prior
    if isinstance(symbol_prior, SymbolPrior):
        if file.mode == "static":
            return prior.decode_static(symbol_prior, file.payload, rows=rows, columns=columns)
        if file.mode == "context" and symbol_prior.context:
            return prior.decode_context(symbol_prior.context, file.payload, rows=rows, columns=columns)
    raise _other_mode(file)


def _decode_levels(
    file: container.Container, factorized_prior: FactorizedPrior, rows: int, columns: int
) -> tuple[int, npt.NDArray[np.int32]]:
    if file.mode != "factorized":
        raise _other_mode(file)
    level, payload = 0, file.payload
    if len(factorized_prior.levels) > 1:
        if not payload or payload[0] >= len(factorized_prior.levels):
            raise ValueError("the file names a quality level that its model does not have; the file is damaged")
        level, payload = payload[0], payload[1:]
    _check_end(payload)
    tables = factorized_prior.levels[level]
    return level, factorized.decode_factorized(tables, payload, rows=rows, columns=columns)


def _check_end(coded: bytes) -> None:
    if coded.endswith(b"\0"):
        raise ValueError(f"no encoder makes such a payload of {len(coded)} bytes; the file is damaged")


def _other_mode(file: container.Container) -> ValueError:
    return ValueError(f"the file is coded in mode {file.mode}, which its model does not have; the file is damaged")
