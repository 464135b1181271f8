"""Fit the prior of a model to pictures, with which the same pictures make smaller files."""

import dataclasses
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cod_jax import files, images
from cod_jax.coding.entropy import EntropyModel, Prior
from cod_jax.coding.entropy.fitting import fit_prior
from cod_jax.coding.stream import SymbolCoder
from cod_jax.errors import UserError, WorkError
from cod_jax.image_search import find_images
from cod_jax.model_folder.bundle import Bundle, bottleneck_of, load_bundle, load_description
from cod_jax.model_folder.prior_file import PRIOR_FILE, save_prior
from cod_jax.plugins import resolve

# The centres of pictures have sides that are multiples of 128, so that few sizes are compiled.
CROP, CROP_STEP = 512, 128
# More would take more than a gigabyte to fit to.
MAX_SYMBOLS = 2**21
HELD_OUT_EVERY = 10


def fit(
    model: str,
    folder: str,
    make_encode: Callable[[Bundle], Callable[[np.ndarray], np.ndarray]],
    *,
    entropy_model: str = "",
    force: bool = False,
) -> list[str]:
    """Fit the prior of a model and write it into its folder.

    Args:
        model: Folder of a model with a codebook.
        folder: Folder of pictures.
        make_encode: Makes of a model the function that returns the symbols of a picture, as `Codec.encode` does.
        entropy_model: "package.module:Class" of an entropy model of another package; by default those of this one.
        force: Replace the prior that the folder has.

    Returns:
        Lines for people about what was done and measured.

    Raises:
        UserError: The model has no codebook or already has a prior, the folder holds no pictures, or the entropy model
            is unknown, cannot be fitted or gives tables that cannot be coded with.
        WorkError: None of the pictures can be used.
        OSError: A folder cannot be read or written.
    """
    config, _ = load_description(model)
    # Named on the command line, so the user trusts it.
    custom = resolve(entropy_model, EntropyModel, trusted=True) if entropy_model else None
    if config.codec.symbols.bits is None and custom is None:
        raise UserError(
            f"{model} has no codebook, and its files need no other prior than the one trained with it; leave it, or "
            "name an --entropy-model"
        )
    if custom is not None and getattr(custom.fit, "__func__", None) is EntropyModel.fit.__func__:
        raise UserError(f"{entropy_model} cannot be fitted to pictures; define its class method fit")
    if (Path(model) / PRIOR_FILE).exists() and not force:
        raise UserError(
            f"{model} has a prior, and files coded with it need it; pass --force to replace it, or copy the model "
            "folder first"
        )
    bundle = load_bundle(model, with_prior=False)  # a damaged one is replaced as well
    names = find_images(folder)
    if not names:
        raise UserError(f"{folder} holds no pictures; give a folder of {files.IMAGE_FORMATS} files")
    random.Random(0).shuffle(names)
    unused: list[str] = []
    grids = list(_encode_centres(make_encode(bundle), Path(folder), names, unused))
    if not grids:
        raise WorkError(f"none of the {len(names)} pictures can be used, for example {unused[0]}; give others")
    held_out = grids[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    fitted = [grid for index, grid in enumerate(grids) if (index + 1) % HELD_OUT_EVERY]
    if custom is None:
        prior = fit_prior(fitted, _values_of_symbols(bundle))
    else:
        prior = Prior.of(custom.fit(fitted, config.codec.symbols))
    # What cannot be coded with is not saved.
    coder = dataclasses.replace(bundle, prior=prior).symbol_coder()
    save_prior(model, prior)

    lines = [f"left out {len(unused)} of {len(names)} pictures, for example {unused[0]}"] if unused else []
    lines.append(f"fitted the prior to {sum(grid.size for grid in fitted)} symbols of {len(fitted)} pictures")
    if held_out:
        lines.append(_measure(coder, held_out))
    return [*lines, f"the fingerprint of {model} is now {coder.fingerprint[:16]}"]


def _values_of_symbols(bundle: Bundle) -> np.ndarray:
    """Return what each symbol stands for [K, channels]: the code vectors of a codebook."""
    symbols = jnp.arange(bundle.config.codec.symbols.size, dtype=jnp.int32)[None, :, None, None]
    values = bottleneck_of(bundle.config, bundle.params).lookup(symbols, jnp.zeros((1,), jnp.int32))
    return np.asarray(values)[0, :, 0]


def _encode_centres(
    encode: Callable[[np.ndarray], np.ndarray], folder: Path, names: Sequence[str], unused: list[str]
) -> Iterator[np.ndarray]:
    """Yield the symbols of pictures until there are enough; name those that cannot be used, and why, in `unused`."""
    num_symbols = 0
    for name in tqdm(names, unit="picture", leave=False, disable=None):
        if num_symbols >= MAX_SYMBOLS:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # how single pictures were converted is not of interest
                image_uint8 = images.to_uint8_rgb(folder / name)
        except (UserError, OSError) as error:
            unused.append(files.reason(error))
            continue
        height, width = (min(CROP, side) // CROP_STEP * CROP_STEP for side in image_uint8.shape[:2])
        if not height or not width:
            unused.append(f"{folder / name}: a side is below {CROP_STEP} pixels")
            continue
        top, left = (image_uint8.shape[0] - height) // 2, (image_uint8.shape[1] - width) // 2
        grid = encode(np.ascontiguousarray(image_uint8[top : top + height, left : left + width]))
        num_symbols += grid.size
        yield grid


def _measure(coder: SymbolCoder, grids: Sequence[np.ndarray]) -> str:
    """Say what the prior saves on pictures of the best quality that it was not fitted to."""
    best = coder.num_levels - 1
    symbols = np.concatenate([grid.reshape(-1) for grid in grids])
    _, occurrences = np.unique(symbols, return_counts=True)
    shares = occurrences / symbols.size
    perplexity = 2 ** -(shares * np.log2(shares)).sum()
    totals = {model.mode: sum(model.estimated_bits(grid, level=best) for grid in grids) for model in coder.models}
    means = {mode: total / symbols.size for mode, total in totals.items()}
    # A code of fixed length, where there is one, is what the others are compared with.
    fixed = means.pop("raw", None)
    saved = {mode: f" ({100 * (1 - mean / fixed):.1f} % less)" if fixed else "" for mode, mean in means.items()}
    modes = [f"fixed {fixed:g}"] if fixed else []
    modes += [f"{mode} {mean:.3f}{saved[mode]}" for mode, mean in means.items()]
    of_all = f" of {2**fixed:g}" if fixed else ""
    return (
        f"bits per symbol of {len(grids)} held-out pictures: {', '.join(modes)}; their perplexity is "
        f"{perplexity:.1f}{of_all}"
    )
