"""What `cod info` says about a `.cod` file, without a model, or about a model folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cod_jax.coding import container, legacy, stream
from cod_jax.model_folder.decoding import DecodingConfig


def describe_file(data: bytes, *, layout: stream.Layout) -> dict[str, Any]:
    """What a file says about itself.

    Args:
        data: The whole file.
        layout: How it is laid out; published layouts do not say so themselves.

    Returns:
        JSON values: `format` (the layout), `version` of the container or None, `width` and `height` in pixels, `mode`,
        `model` (8 hex digits, None in published layouts), `file_bytes`, `payload_bytes` and `bits_per_pixel`.

    Raises:
        UserError: No such file, or a damaged one.
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


def describe_model(path: Path) -> dict[str, Any]:
    """What a model folder holds.

    Returns:
        JSON values: `fingerprint` and `weights_fingerprint` (64 hex digits each, with and without the prior), `pitch`
        (pixels per symbol in each direction), `codebook_bits` and `bits_per_pixel` (of a symbol, and what they come to
        in files of mode raw; both None with a factorized bottleneck), `latent_channels`, `quality_levels`, `prior`
        ("static", "context", "factorized" or None), `parameters`, `autoencoder` (None, or "name" and "parameters"),
        `attention`, `decoding` (the defaults of `decompress`), `dtype`, and `training`, the facts of its training.

    Raises:
        UserError: No model folder, or a damaged one.
    """
    # A file is described without loading JAX.
    from cod_jax.coding.prior import SymbolPrior
    from cod_jax.model_folder.bundle import load_bundle
    from cod_jax.models.config import DDTConfig
    from cod_jax.models.functional import count_params

    bundle = load_bundle(path)
    codec, denoiser, coder = bundle.config.codec, bundle.config.denoiser, bundle.symbol_coder()
    match bundle.prior:
        case None:
            prior = None
        case SymbolPrior():
            prior = "static" if bundle.prior.context is None else "context"
        case _:
            prior = "factorized"
    autoencoder = None
    if isinstance(denoiser, DDTConfig):
        autoencoder = {"name": denoiser.autoencoder, "parameters": count_params(bundle.autoencoder)}
    return {
        "fingerprint": coder.fingerprints.folder,
        "weights_fingerprint": coder.fingerprints.weights,
        "pitch": codec.pitch,
        "codebook_bits": None if codec.factorized else codec.codebook_bits,
        "bits_per_pixel": None if codec.factorized else codec.nominal_bits_per_pixel,
        "latent_channels": codec.latent_channels,
        "quality_levels": coder.num_levels,
        "prior": prior,
        "parameters": count_params(bundle.params),
        "autoencoder": autoencoder,
        "attention": codec.attention,
        "decoding": dataclasses.asdict(bundle.decoding),
        "dtype": bundle.dtype,
        "training": dict(bundle.training),
    }


def model_lines(path: Path, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Put what `describe_model` found into titles and values for people."""
    cell = f"for {facts['pitch']}x{facts['pitch']} pixels"
    if facts["codebook_bits"] is None:
        symbols = f"{facts['latent_channels']} numbers {cell}, {facts['quality_levels']} quality levels"
    else:
        symbols = f"{facts['codebook_bits']} bits {cell}, {facts['bits_per_pixel']:.4g} bits per pixel"
    autoencoder = "none, the model works on pixels"
    if facts["autoencoder"]:
        number = facts["autoencoder"]["parameters"]
        autoencoder = facts["autoencoder"]["name"] + (f", {number:,} parameters" if number else "")
    prior = {
        None: "none, symbols are stored with a fixed number of bits",
        "static": "static",
        "context": "static and context",
        "factorized": "factorized",
    }[facts["prior"]]
    # Files of mode raw name the weights, whatever the prior.
    has_raw_files = facts["prior"] in ("static", "context")
    lines = [
        ("model", str(path)),
        ("fingerprint", facts["fingerprint"]),
        *([("fingerprint of weights", facts["weights_fingerprint"])] if has_raw_files else []),
        ("symbols", symbols),
        ("prior", prior),
        ("parameters", f"{facts['parameters']:,}"),
        ("autoencoder", autoencoder),
        ("attention", facts["attention"]),
        ("decoding", DecodingConfig(**facts["decoding"]).summary()),
        ("dtype", facts["dtype"]),
    ]
    found = dict(lines)
    # Facts from a stranger do not replace what was found here.
    told = [(name, str(value)) for name, value in facts["training"].items() if isinstance(value, (str, int, float))]
    return lines + [(name, value) for name, value in told if name not in found]
