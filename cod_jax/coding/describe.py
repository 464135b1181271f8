"""Describe `.cod` files without their model."""

from typing import Any

from cod_jax.coding import container, legacy, stream
from cod_jax.coding.walk import SNR_UNIT, read_walk


def describe_file(data: bytes, *, layout: stream.Layout) -> dict[str, Any]:
    """Return what a `.cod` file says about itself, without its model.

    Args:
        data: The whole file.
        layout: How it is laid out, which files in published layouts do not say themselves.

    Returns:
        JSON values: `format` (the layout), `version` of the container or None, `width` and `height` in pixels, `mode`,
        `model` (8 hex digits, None in published layouts), `file_bytes`, `payload_bytes` and `bits_per_pixel`. For mode
        diffc also `symbols_mode`, `symbols_bytes`, `coded_steps`, `chunks` of each step, and `noise`, the part of
        noise in the last state, from 1 at the start to 0.

    Raises:
        UserError: The file is damaged, or has another layout.
    """
    steps: dict[str, Any] = {}
    if layout == "cod":
        file = container.read(data)
        height, width, payload_bytes = file.height, file.width, len(file.payload)
        version, mode, model = container.VERSION, file.mode, file.model
        steps = _describe_walk(file.payload) if mode == "diffc" else {}
    else:
        header = legacy.decode_legacy_header(data, layout)
        legacy.check_header(data, header)
        height, width, payload_bytes = header.height, header.width, header.payload_bytes
        version, mode, model = None, "raw", None
    return {
        "format": layout,
        "version": version,
        "width": width,
        "height": height,
        "mode": mode,
        "model": model,
        "file_bytes": len(data),
        "payload_bytes": payload_bytes,
        "bits_per_pixel": 8 * len(data) / (height * width),
        **steps,
    }


def _describe_walk(payload: bytes) -> dict[str, Any]:
    mode, symbols_payload, steps = read_walk(payload)
    return {
        "symbols_mode": mode,
        "symbols_bytes": len(symbols_payload),
        "coded_steps": len(steps.grades),
        "chunks": steps.num_chunks,
        "noise": 1 / (1 + (steps.snr_units()[-1] * SNR_UNIT) ** 0.5),
    }
