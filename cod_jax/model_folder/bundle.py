"""Model folders: the description and the weights of a trained model, with a fingerprint of both.

A folder holds `model.json` and `weights.safetensors`, and needs nothing else: latent models bring their frozen
autoencoder. It may hold `prior.safetensors`, which makes files smaller. None of the files can run code, and names,
shapes and types are checked before a number is read.
"""

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from cod_jax import files, storage
from cod_jax.coding.digests import digest_arrays
from cod_jax.coding.entropy import Prior, entropy_models
from cod_jax.coding.fingerprints import fingerprint_with_prior
from cod_jax.coding.stream import SymbolCoder
from cod_jax.errors import UserError, quoted
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.model_folder.description import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    errors_that_name,
    read_description,
    to_json,
)
from cod_jax.model_folder.prior_file import load_prior, save_prior
from cod_jax.model_folder.replacing import ReplacedModel, replaced_model
from cod_jax.models import ModelConfig, build_model, flatten_params, unflatten_params
from cod_jax.models.bottlenecks import Bottleneck
from cod_jax.models.compute import Dtype
from cod_jax.models.fields import from_mapping
from cod_jax.models.functional import Functional, Params, check_fit
from cod_jax.models.space import Space
from cod_jax.runtime.arrays import open_tensors

# Before the names of the autoencoder's weights, as "codec" and "denoiser" are before those of the model's parts.
AUTOENCODER = "autoencoder"

# Steps and guidance with which the published models are sampled.
PUBLISHED_STEPS = 25
PIXEL_GUIDANCE, LATENT_GUIDANCE = 3.0, 1.25


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A loaded model folder.

    Attributes:
        config: What the model is.
        params: Nested dict of float32 numpy arrays, as `build_model(config)` takes them.
        fingerprint: 64 hex digits that name exactly these weights in this model; the prior has no part in it.
        dtype: Dtype of the computation in use.
        training: Facts of its training, such as the step and the settings. They are for people, with two exceptions:
            models that cannot be a teacher by them are refused as one, see `abilities`, and more effort in encoding
            takes the weights of the loss from them.
        autoencoder: Nested dict of float32 numpy arrays, as `Space(config)` takes them; {} where it takes none.
        decoding: How pictures are decoded unless something else is asked for.
        prior: The tables that code the symbols; None where files store them with a fixed number of bits.
    """

    config: ModelConfig
    params: Params
    fingerprint: str
    dtype: Dtype
    training: Mapping[str, Any]
    autoencoder: Params = dataclasses.field(default_factory=dict)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    prior: Prior | None = None

    def symbol_coder(self) -> SymbolCoder:
        """Return what writes and reads the files of the model.

        Raises:
            UserError: The tables that code its symbols are missing, or those of another model.
        """
        codec = self.config.codec
        return SymbolCoder(self.fingerprint, codec.pitch, codec.symbols, self.prior)


def default_decoding(config: ModelConfig, *, one_step: bool) -> DecodingConfig:
    """Return the published settings of a model's family as its defaults of decoding.

    These are 25 steps and guidance 3.0 in pixels, 1.25 on latents, 3.0 again for the 64-bit model on latents.

    Args:
        config: What the model is.
        one_step: Whether it was trained for one step, which is what it takes then; the rest is for users who ask for
            more steps.
    """
    guidance_scale = LATENT_GUIDANCE if config.is_latent and not config.codec.is_deep else PIXEL_GUIDANCE
    return DecodingConfig(1 if one_step else PUBLISHED_STEPS, guidance_scale, config.sampling_method)


def save_bundle(
    path: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    *,
    training: Mapping[str, Any],
    autoencoder: Params | None = None,
    decoding: DecodingConfig | None = None,
    dtype: str = "float32",
    force: bool = False,
) -> str:
    """Write a model folder, whole or not at all.

    With a factorized bottleneck the tables that code its symbols are made here, once: as integers they are the same for
    whoever reads the folder.

    Args:
        path: Folder to make, or an address of remote storage.
        config: What the model is.
        params: Nested dict of arrays, as `build_model(config)` takes them; stored as float32.
        training: JSON values that say where the weights come from.
        autoencoder: Nested dict of arrays, as `Space(config)` takes them; stored as float32. Only for latent models
            whose autoencoder has weights.
        decoding: How pictures are decoded unless something else is asked for; by default in one step.
        dtype: Dtype of the computation in use, "float32" or "bfloat16".
        force: Replace an existing model folder. Of the same weights, its prior is kept.

    Returns:
        The fingerprint that files name the folder by.

    Warns:
        UserWarning: A folder of other weights was replaced, which files coded with them need.

    Raises:
        UserError: The parameters do not fit the model, are not finite, or lack those of the autoencoder, or `dtype` is
            unknown; or the folder to be replaced has a prior that was fitted to other weights.
        FileExistsError: The folder exists and may not be replaced.
    """
    _checked_dtype(dtype, "dtype")
    if config.has_learned_autoencoder and not autoencoder:
        raise UserError(
            "the model works on latents of sd-vae-ft-ema, whose parameters are missing; pass them as autoencoder, so "
            "that the folder can decode pictures"
        )
    tree = {**params, AUTOENCODER: autoencoder} if autoencoder else params
    # The writer of safetensors takes the memory as it lies, so a transposed array would be damaged.
    given = jax.device_get(flatten_params(tree))
    flat = {name: np.asarray(value, np.float32, order="C") for name, value in given.items()}
    unflatten_params(flat, _stored_shapes(config))
    broken = [name for name, value in flat.items() if not np.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{len(broken)} parameters hold NaN or infinity ({', '.join(broken[:3])}, ...); export an earlier step"
        )
    fingerprint = model_fingerprint(config, flat)
    description = {
        "model": config.to_dict(),
        "dtype": dtype,
        "decoding": dataclasses.asdict(decoding or default_decoding(config, one_step=True)),
        "training": dict(training),
        "fingerprint": fingerprint,
    }
    is_old = storage.check_new_directory(path, force, DESCRIPTION_FILE)
    old = _replaced(path, fingerprint) if is_old else ReplacedModel("")
    prior = old.prior or _frozen_prior(config, params)
    with storage.new_directory(path, force=force, marker=DESCRIPTION_FILE) as folder:
        files.write_bytes(folder / WEIGHTS_FILE, safetensors.numpy.save(flat))
        if prior:
            save_prior(folder, prior)
        files.write_bytes(folder / DESCRIPTION_FILE, to_json(description))
    if old.fingerprint not in ("", fingerprint):
        warnings.warn(
            f"{path} held the model of fingerprint {old.fingerprint[:16]}, which its files need; it was replaced",
            stacklevel=2,
        )
    return fingerprint_with_prior(fingerprint, prior)


def load_bundle(path: str | os.PathLike[str], *, with_prior: bool = True, with_weights: bool = True) -> Bundle:
    """Read a model folder.

    Args:
        path: Model folder.
        with_prior: Whether to read the prior too; without it the bundle can encode symbols but not write files like the
            folder's.
        with_weights: Whether to read the weights too. Without them the bundle has shapes, `jax.ShapeDtypeStruct`, in
            their place; that their names and shapes fit is checked, but not that they are those of the fingerprint.

    Raises:
        UserError: The path is not a model folder, or has another format or version; or its weights are damaged, were
            changed since the export, or do not fit the description.
    """
    folder = Path(path)
    description = read_description(folder)
    with errors_that_name(folder / DESCRIPTION_FILE):
        config = ModelConfig.from_dict(description["model"])
        decoding = default_decoding(config, one_step=True)  # folders from before there was a choice
        if "decoding" in description:
            decoding = from_mapping(DecodingConfig, description["decoding"], "decoding")
    dtype = _checked_dtype(description["dtype"], f"{folder / DESCRIPTION_FILE}: dtype")
    shapes = _stored_shapes(config)
    fingerprint = description["fingerprint"]
    if with_weights:
        flat = _load_weights(folder / WEIGHTS_FILE, shapes)
        if model_fingerprint(config, flat) != fingerprint:
            raise UserError(
                f"{folder}: the weights are not those of its fingerprint, so one of its files was damaged or changed; "
                "copy or export the model again"
            )
        params = unflatten_params(flat, shapes)
    else:
        _load_weights(folder / WEIGHTS_FILE, shapes, only_check=True)
        params = dict(shapes)
    autoencoder = params.pop(AUTOENCODER, {})
    prior = load_prior(folder, config.codec.symbols) if with_prior else None
    return Bundle(config, params, fingerprint, dtype, description["training"], autoencoder, decoding, prior)


def load_description(path: str | os.PathLike[str]) -> tuple[ModelConfig, Mapping[str, Any]]:
    """Return the description of a model, and the facts of its training, without reading its weights.

    Raises:
        UserError: The path is not a model folder, or the folder is damaged or from another version.
    """
    folder = Path(path)
    description = read_description(folder)
    with errors_that_name(folder / DESCRIPTION_FILE):
        return ModelConfig.from_dict(description["model"]), description["training"]


def model_fingerprint(config: ModelConfig, flat: Mapping[str, np.ndarray]) -> str:
    """Name a model by its content: SHA-256 of its description and of every name, shape and float32 value.

    The default settings of decoding are left out: they change neither the symbols of a picture nor its file, so a file
    can be decoded in other ways and by folders with other defaults.

    Args:
        config: What the model is.
        flat: float32 arrays by flat name, those of the autoencoder among them.

    Returns:
        64 hex digits.
    """

    def header(name: str, value: np.ndarray) -> bytes:
        return _canonical_json([name, list(np.atleast_1d(value).shape)])

    numbers = {name: np.asarray(value, np.float32) for name, value in flat.items()}
    return digest_arrays(numbers, header, start=_canonical_json(config.to_dict()))


def bottleneck_of(config: ModelConfig, params: Params) -> Bottleneck:
    """Return the bottleneck of a model, float32, without the rest."""
    codec = config.codec
    build = Functional(lambda rngs: codec.bottleneck.build(codec.latent_channels, pitch=codec.pitch, rngs=rngs))
    return build.bind(
        jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), params["codec"].get("bottleneck", {}))
    )


def _replaced(path: str | os.PathLike[str], fingerprint: str) -> ReplacedModel:
    """Return what is at the place of a new model folder; see `replaced_model`."""
    if not files.is_address(path):
        return replaced_model(path, fingerprint)
    copy = storage.fetch(path, (DESCRIPTION_FILE,))
    try:
        return replaced_model(copy, fingerprint)
    except UserError as error:
        raise UserError(str(error).replace(str(copy), str(path))) from error


def _frozen_prior(config: ModelConfig, params: Params) -> Prior | None:
    """Return the tables that a bottleneck makes of what it has learned, or None.

    Raises:
        UserError: They do not code its symbols.
    """
    tables = bottleneck_of(config, params).entropy_tables()
    if not tables:
        return None
    prior = Prior(tables)
    entropy_models(config.codec.symbols, prior)
    return prior


def _stored_shapes(config: ModelConfig) -> Params:
    """Shapes of all that a folder holds: the model, and the autoencoder where it has weights."""
    shapes = build_model(config).shapes
    functional = Space(config).functional
    return shapes if functional is None else {**shapes, AUTOENCODER: functional.shapes}


def _canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _checked_dtype(dtype: Any, where: str) -> Dtype:
    if dtype not in get_args(Dtype):
        raise UserError(f"{where} is {quoted(dtype)}; it must be one of {', '.join(get_args(Dtype))}")
    return dtype


def _load_weights(file: Path, shapes: Params, *, only_check: bool = False) -> dict[str, np.ndarray]:
    """Read float32 arrays by flat name, or none; nothing is read before all names, shapes and types fit."""
    if not file.is_file():
        raise UserError(f"{file} is missing; copy or export the model again")
    try:
        with open_tensors(file) as tensors:
            given = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in tensors.shapes.items()}
            check_fit(given, flatten_params(shapes))
            return {} if only_check else tensors.read(["F32"])
    except UserError as error:
        raise UserError(f"{file} is damaged or of another model ({error}); copy or export the model again") from error
