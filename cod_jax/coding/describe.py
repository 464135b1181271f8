"""Describe `.cod` files without their model."""

from typing import Any

from cod_jax.coding import container, legacy, stream


def describe_file(data: bytes, *, layout: stream.Layout) -> dict[str, Any]:
    """Return what a `.cod` file says about itself, without its model.

    Args:
        data: The whole file.
        layout: How it is laid out, which files in published layouts do not say themselves.

    Returns:
        JSON values: `format` (the layout), `version` of the container or None, `width` and `height` in pixels, `mode`,
        `model` (8 hex digits, None in published layouts), `file_bytes`, `payload_bytes` and `bits_per_pixel`.

    Raises:
        UserError: The file is damaged, or has another layout.
    """
    if layout == "cod":
        file = container.read(data)
        height, width, payload_bytes = file.height, file.width, len(file.payload)
        version, mode, model = container.VERSION, file.mode, file.model
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
    }
