"""Fit the prior of a model to pictures, so that similar pictures make smaller files."""

import dataclasses
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cod_jax import files, images
from cod_jax.coding.entropy import EntropyModel, Prior
from cod_jax.coding.stream import SymbolCoder
from cod_jax.errors import UserError, WorkError
from cod_jax.image_search import find_images
from cod_jax.model_folder.bundle import Bundle, bottleneck_of, load_bundle, load_description
from cod_jax.model_folder.included import is_included
from cod_jax.model_folder.prior_file import PRIOR_FILE, load_prior, save_prior
from cod_jax.plugins import resolve

# The centres of pictures have sides that are multiples of 128, so that few sizes are compiled.
CROP, CROP_STEP = 512, 128
# More would take more than a gigabyte to fit to. Of many channels so many count.
MAX_SYMBOLS = 2**21
# Networks learn from more.
MAX_NETWORK_SYMBOLS = 6 * MAX_SYMBOLS
MAX_CHANNELS = 16
HELD_OUT_EVERY = 10
# From a picture [H, W, 3] and the keyword level to symbols [h, w, C].
Encode = Callable[..., np.ndarray]


class Sample(NamedTuple):
    """Symbols [h, w, C] of a picture at a quality level, with the number of the picture among those that are used."""

    symbols: np.ndarray
    level: int
    picture: int


def fit(
    model: str,
    folder: str,
    make_encode: Callable[[Bundle], Encode],
    *,
    entropy_model: str = "",
    network_steps: int = 0,
    force: bool = False,
) -> list[str]:
    """Fit the prior of a model and write it into its folder.

    Args:
        model: Folder of a model.
        folder: Folder of pictures.
        make_encode: Makes of a model the function that returns the symbols of a picture, `Codec.encode`.
        entropy_model: "package.module:Class" of an entropy model of another package; by default those of this one.
        network_steps: Steps of training for the networks of mode "predictive", of each group of channels; 0 makes none.
        force: Replace the prior that the folder has.

    Returns:
        Lines for people about what was done and measured.

    Raises:
        UserError: The model comes with the package or already has a fitted prior, the folder holds no pictures, or the
            entropy model is unknown, has no networks, cannot be fitted or gives tables that cannot be coded with.
        WorkError: None of the pictures can be used.
        OSError: A folder cannot be read or written.
    """
    if is_included(model):
        raise UserError(
            f"{model} comes with the package, and everybody's files need its present prior; copy the folder and fit "
            "the prior of the copy"
        )
    config, _ = load_description(model)
    # Named on the command line, so the user trusts it.
    custom = resolve(entropy_model, EntropyModel, trusted=True) if entropy_model else None
    if custom is not None and getattr(custom.fit, "__func__", None) is EntropyModel.fit.__func__:
        raise UserError(f"{entropy_model} cannot be fitted to pictures; define its class method fit")
    if network_steps and (custom is not None or config.codec.symbols.bits is not None):
        symbols = entropy_model or str(config.codec.symbols)
        raise UserError(
            f"expected a model with a factorized bottleneck to train networks for, got {symbols}; leave out "
            "--network-steps"
        )
    if (Path(model) / PRIOR_FILE).exists() and not force:
        raise UserError(
            f"{model} has a prior, and files coded with it need it; pass --force to replace it, or copy the model "
            "folder first"
        )
    bundle, tables = _load_to_fit(Path(model))
    names = find_images(folder)
    if not names:
        raise UserError(f"{folder} holds no pictures; give a folder of {files.IMAGE_FORMATS} files")
    random.Random(0).shuffle(names)
    unused: list[str] = []
    num_levels = config.codec.symbols.num_levels
    # An entropy model of another package learns from the best quality alone.
    levels = range(num_levels) if custom is None else [num_levels - 1]
    most = MAX_NETWORK_SYMBOLS if network_steps else MAX_SYMBOLS
    samples = list(_encode_centres(make_encode(bundle), Path(folder), names, levels, most, unused))
    if not samples:
        raise WorkError(f"none of the {len(names)} pictures can be used, for example {unused[0]}; give others")
    held_out = [sample for sample in samples if sample.picture % HELD_OUT_EVERY == HELD_OUT_EVERY - 1]
    fitted = [sample for sample in samples if sample.picture % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    grids, fitted_levels = [sample.symbols for sample in fitted], [sample.level for sample in fitted]
    if custom is None:
        bottleneck = bottleneck_of(config, bundle.params)
        options = {"network_steps": network_steps} if network_steps else {}
        prior = bottleneck.fit_prior(grids, fitted_levels, config.codec.symbols, tables, **options)
    else:
        prior = Prior.of(custom.fit(grids, config.codec.symbols))
    # What cannot be coded with is not saved.
    coder = dataclasses.replace(bundle, prior=prior).symbol_coder()
    save_prior(model, prior)

    lines = [f"left out {len(unused)} of {len(names)} pictures, for example {unused[0]}"] if unused else []
    lines.append(f"fitted the prior to {sum(grid.size for grid in grids)} symbols of {_num_pictures(fitted)} pictures")
    if held_out:
        lines.append(_measure(coder, held_out))
    return [*lines, f"the fingerprint of {model} is now {coder.fingerprint[:16]}"]


def _load_to_fit(model: Path) -> tuple[Bundle, Mapping[str, np.ndarray]]:
    """Return a model with the tables that come from training, and these; a damaged prior is replaced as well."""
    bundle = load_bundle(model, with_prior=False)
    tables = bottleneck_of(bundle.config, bundle.params).entropy_tables()
    try:
        prior = load_prior(model, bundle.config.codec.symbols) if tables else None
    except UserError:
        prior = None
    if prior:
        # This machine may compute them differently, and files that are coded with them need them.
        tables = {name: prior.tables.get(name, table) for name, table in tables.items()}
    return dataclasses.replace(bundle, prior=Prior(tables) if tables else None), tables


def _encode_centres(
    encode: Encode, folder: Path, names: Sequence[str], levels: Sequence[int], most: int, unused: list[str]
) -> Iterator[Sample]:
    """Yield the symbols of pictures until there are `most`, each at one level after the other where there are few.

    Pictures that cannot be used are named in `unused`, with the reason.
    """
    num_symbols = 0
    for turn in range(len(levels)):
        usable: list[str] = []
        for name in tqdm(names, unit="picture", leave=False, disable=None):
            if num_symbols >= most:
                return
            try:
                centre = _read_centre(folder / name)
            except (UserError, OSError) as error:
                unused.append(files.reason(error))
                continue
            level = levels[(len(usable) + turn) % len(levels)]
            symbols = encode(centre, level=level)
            num_symbols += symbols[..., :MAX_CHANNELS].size
            yield Sample(symbols, level, len(usable))
            usable.append(name)
        names = usable


def _read_centre(path: Path) -> np.ndarray:
    """Return the centre of a picture, uint8 [H, W, 3] with sides that are multiples of CROP_STEP.

    Raises:
        UserError: It is too small, or cannot be read.
        OSError: It cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # how single pictures were converted is not of interest
        image_uint8 = images.to_uint8_rgb(path)
    height, width = (min(CROP, side) // CROP_STEP * CROP_STEP for side in image_uint8.shape[:2])
    if not height or not width:
        raise UserError(f"{path}: a side is below {CROP_STEP} pixels")
    top, left = (image_uint8.shape[0] - height) // 2, (image_uint8.shape[1] - width) // 2
    return np.ascontiguousarray(image_uint8[top : top + height, left : left + width])


def _num_pictures(samples: Sequence[Sample]) -> int:
    return len({sample.picture for sample in samples})


def _measure(coder: SymbolCoder, samples: Sequence[Sample]) -> str:
    """Say what the prior saves on pictures that it was not fitted to."""
    symbols = np.concatenate([sample.symbols.reshape(-1) for sample in samples])
    _, occurrences = np.unique(symbols, return_counts=True)
    shares = occurrences / symbols.size
    perplexity = 2 ** -(shares * np.log2(shares)).sum()
    totals = {
        model.mode: sum(model.estimated_bits(sample.symbols, sample.level) for sample in samples)
        for model in coder.models
    }
    means = {mode: total / symbols.size for mode, total in totals.items()}
    # A code of fixed length, where there is one, is what the others are compared with.
    fixed = means.pop("raw", None)
    saved = {mode: f" ({100 * (1 - mean / fixed):.1f} % less)" if fixed else "" for mode, mean in means.items()}
    modes = [f"fixed {fixed:g}"] if fixed else []
    modes += [f"{mode} {mean:.3f}{saved[mode]}" for mode, mean in means.items()]
    of_all = f" of {2**fixed:g}" if fixed else ""
    return (
        f"bits per symbol of {_num_pictures(samples)} held-out pictures: {', '.join(modes)}; their perplexity is "
        f"{perplexity:.1f}{of_all}"
    )
