"""Describe model folders, and the folders of compiled models."""

import dataclasses
from pathlib import Path
from typing import Any

from cod_jax.model_folder.bundle import load_bundle
from cod_jax.model_folder.description import read_fingerprints
from cod_jax.models.functional import count_params
from cod_jax.runtime.folder import read_description


def describe_model(path: Path) -> dict[str, Any]:
    """Return what a model folder holds.

    Returns:
        JSON values by name. `fingerprint` and `weights_fingerprint` have 64 hex digits each, with and without the
        prior. `pitch` is pixels per symbol in each direction. `codebook_bits` and `bits_per_pixel` are those of a
        symbol and of files of mode raw, or None if there is no such number. `symbol_channels` is symbols at each grid
        position. `modes` are those of the files that the model may write, and `prior` is the last of them, or None
        without a prior. `autoencoder` is None, or has "name" and "parameters". `decoding` has the defaults of
        `decompress`, and `training` the facts of the training. `attention` is None without any. The others are
        `latent_channels`, `quality_levels`, `parameters` and `dtype`.

    The weights are not read: their number is known from their shapes, and the fingerprint from the description.

    Raises:
        UserError: The path is not a model folder, or the folder is damaged otherwise.
    """
    bundle = load_bundle(path, with_weights=False)
    codec, denoiser, coder = bundle.config.codec, bundle.config.denoiser, bundle.symbol_coder()
    # The last entropy model is the one with the most work, and with the most of the tables.
    prior = coder.models[-1].mode if bundle.prior else None
    autoencoder = None
    if denoiser.autoencoder != "none":
        autoencoder = {"name": denoiser.autoencoder, "parameters": count_params(bundle.autoencoder)}
    return {
        "fingerprint": coder.fingerprints.folder,
        "weights_fingerprint": coder.fingerprints.weights,
        "pitch": codec.pitch,
        "codebook_bits": codec.symbols.bits,
        "bits_per_pixel": codec.nominal_bits_per_pixel,
        "latent_channels": codec.latent_channels,
        "symbol_channels": codec.symbols.num_channels,
        "quality_levels": coder.num_levels,
        "modes": [model.mode for model in coder.models],
        "prior": prior,
        "parameters": count_params(bundle.params),
        "autoencoder": autoencoder,
        "attention": codec.attention,
        "decoding": dataclasses.asdict(bundle.decoding),
        "dtype": bundle.dtype,
        "training": dict(bundle.training),
    }


def describe_compiled(path: Path) -> dict[str, Any]:
    """Return what the folder of a compiled model holds.

    Returns:
        JSON values: `fingerprint`, `weights_fingerprint`, `pitch`, `codebook_bits` and `bits_per_pixel` as of a model
        folder, `symbol_channels` and `quality_levels` where the folder tells them, `platforms`, `programs` (how many),
        `file_bytes` (of all files together), `dtype`, `jax_version`, and `sha256`, which `cod_jax.load` takes.

    Raises:
        UserError: The path is not the folder of a compiled model, or the folder is damaged.
    """
    about = read_description(path)
    symbols = about.symbols
    bits = symbols and symbols.bits
    return {
        "fingerprint": read_fingerprints(path).folder,
        "weights_fingerprint": about.weights_fingerprint,
        "pitch": about.pitch,
        "codebook_bits": bits,
        "bits_per_pixel": bits and bits / about.pitch**2,
        **({"symbol_channels": symbols.num_channels, "quality_levels": symbols.num_levels} if symbols else {}),
        "platforms": about.platforms,
        "programs": len(about.programs),
        "file_bytes": sum(facts.num_bytes for facts in about.files.values()),
        "dtype": about.dtype,
        "jax_version": about.jax_version,
        "sha256": about.sha256,
    }
