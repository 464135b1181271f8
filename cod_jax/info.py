"""What `cod info` says about a `.cod` file, without a model, or about a model folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cod_jax.coding import container, legacy, stream


def describe_file(data: bytes, *, layout: stream.Layout) -> dict[str, Any]:
    """What a file says about itself.

    Args:
        data: the whole file.
        layout: how it is laid out; published layouts do not say so themselves.

    Returns:
        JSON values: `format` (the layout), `version` of the container or None, `width` and `height` in pixels, `mode`,
        `model` (8 hex digits, None in published layouts), `file_bytes`, `payload_bytes` and `bits_per_pixel`.

    Raises:
        ValueError: no such file, or a damaged one.
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


def file_lines(path: Path, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Put what `describe_file` found into titles and values for people."""
    name = facts["format"] if facts["version"] is None else f"{facts['format']}, version {facts['version']}"
    return [
        ("file", str(path)),
        ("format", name),
        ("picture", f"{facts['width']}x{facts['height']} pixels (width x height)"),
        ("model", facts["model"] or "not named; decompress with the one that compressed"),
        ("mode", facts["mode"]),
        ("size", f"{facts['file_bytes']} bytes, {facts['bits_per_pixel']:.4g} bits per pixel"),
        ("payload", f"{facts['payload_bytes']} bytes"),
    ]


def model_lines(path: Path) -> list[tuple[str, str]]:
    """Describe a model folder in titles and values for people.

    Raises:
        ValueError: no model folder, or a damaged one.
    """
    # A file is described without loading JAX.
    from cod_jax.bundle import load_bundle
    from cod_jax.coding.factorized import FactorizedPrior
    from cod_jax.coding.prior import SymbolPrior
    from cod_jax.models.config import DDTConfig
    from cod_jax.models.functional import count_params

    bundle = load_bundle(path)
    codec = bundle.config.codec
    cell = f"for {codec.pitch}x{codec.pitch} pixels"
    if codec.factorized:
        symbols = f"{codec.latent_channels} numbers {cell}, {codec.factorized.num_levels} quality levels"
    else:
        symbols = f"{codec.codebook_bits} bits {cell}, {codec.nominal_bits_per_pixel:.4g} bits per pixel"
    denoiser = bundle.config.denoiser
    autoencoder = denoiser.autoencoder if isinstance(denoiser, DDTConfig) else "none, the model works on pixels"
    if bundle.autoencoder:
        autoencoder += f", {count_params(bundle.autoencoder):,} parameters"
    match bundle.prior:
        case None:
            prior = "none, symbols are stored with a fixed number of bits"
        case SymbolPrior(context=None):
            prior = "static"
        case SymbolPrior():
            prior = "static and context"
        case FactorizedPrior():
            prior = "factorized"
    fingerprints = bundle.symbol_coder().fingerprints
    # Files of mode raw name the weights, whatever the prior.
    of_weights = [("fingerprint of weights", fingerprints.weights)] if isinstance(bundle.prior, SymbolPrior) else []
    lines = [
        ("model", str(path)),
        ("fingerprint", fingerprints.folder),
        *of_weights,
        ("symbols", symbols),
        ("prior", prior),
        ("parameters", f"{count_params(bundle.params):,}"),
        ("autoencoder", autoencoder),
        ("attention", codec.attention),
        ("decoding", bundle.decoding.summary()),
        ("dtype", bundle.dtype),
    ]
    found = dict(lines)
    # Facts from a stranger do not replace what was found here.
    facts = [(name, str(value)) for name, value in bundle.training.items() if isinstance(value, (str, int, float))]
    return lines + [(name, value) for name, value in facts if name not in found]
