"""Keep what files depend on when a model folder takes the place of another."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from cod_jax.coding.entropy import Prior
from cod_jax.errors import UserError
from cod_jax.model_folder.description import DESCRIPTION_FILE, WEIGHTS_FILE, read_description
from cod_jax.model_folder.prior_file import PRIOR_FILE, read_prior
from cod_jax.models import ModelConfig

# What a model folder holds; the prior may be absent.
FILES = frozenset({DESCRIPTION_FILE, WEIGHTS_FILE, PRIOR_FILE})


class ReplacedModel(NamedTuple):
    """A model folder that is about to be replaced.

    Attributes:
        fingerprint: 64 hex digits that name its weights; "" where there is no folder, or a damaged one.
        prior: Its prior, if it codes symbols of the new weights too.
    """

    fingerprint: str
    prior: Prior | None = None


def replaced_model(path: str | os.PathLike[str], fingerprint: str) -> ReplacedModel:
    """Return what is at the place of a new model folder.

    Args:
        path: The place.
        fingerprint: 64 hex digits that name the weights of the new folder.

    Raises:
        UserError: The folder there holds files that are not part of a model. Or it has a prior that was fitted to other
            weights, or cannot be read: nothing but its removal by hand says that the files coded with it are not
            needed.
    """
    folder = Path(path)
    if folder.is_dir() and (foreign := sorted({one.name for one in folder.iterdir()} - FILES)):
        raise UserError(
            f"{folder} holds {', '.join(foreign[:3])}, which is not part of a model; move it away, or choose another "
            "output"
        )
    has_prior = (folder / PRIOR_FILE).is_file()
    old, own_tables, prior = "", False, None
    with contextlib.suppress(UserError, OSError):
        description = read_description(folder)
        old = description["fingerprint"]
        # The tables of a bottleneck that has learned them go with its weights.
        own_tables = ModelConfig.from_dict(description["model"]).codec.symbols.bits is None
    with contextlib.suppress(UserError, OSError):
        prior = read_prior(folder)
    if old == fingerprint and (prior is not None or own_tables or not has_prior):
        return ReplacedModel(old, prior)
    if has_prior and not (own_tables and prior is not None and not prior.kind):
        what = "cannot be read" if prior is None else "was fitted to other weights"
        raise UserError(
            f"{folder} holds {PRIOR_FILE}, a prior that {what} and that files coded with it need; choose another "
            "output, or move that file away first"
        )
    return ReplacedModel(old)
