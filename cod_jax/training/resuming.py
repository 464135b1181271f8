"""What a run that goes on from a checkpoint keeps of its settings."""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from cod_jax.errors import UserError
from cod_jax.training.checkpoint import SHAPES, shapes_of
from cod_jax.training.config import TrainConfig, changed_fields
from cod_jax.training.run_folder import DamagedCheckpointError, steps_of
from cod_jax.training.saved_models import load_meta
from cod_jax.training.state import TrainState

_logger = logging.getLogger(__name__)


def as_begun(config: TrainConfig, place: str) -> TrainConfig:
    """Return settings with the stage that a run began with; the order of its pictures and its noise depend on it.

    Runs of versions without stages go on as the first, whose random numbers are those that they have.

    Args:
        config: Settings of the run.
        place: Folder of the run, or the address that takes its place for checkpoints.
    """
    for step in reversed(steps_of(place)):
        with contextlib.suppress(DamagedCheckpointError, FileNotFoundError):
            stage = load_meta(place, step)["config"].get("stage", 1)
            if stage != config.stage:
                _logger.info("the run goes on with the random numbers of stage %s, with which it began", stage)
            return dataclasses.replace(config, stage=stage)
    return config


def check_same_state(config: TrainConfig, place: str, meta: Mapping[str, Any], shapes: TrainState) -> None:
    """Refuse a checkpoint of another seed or of other arrays, and name the settings that changed.

    Args:
        config: Settings of the run, with the model and the objective of the checkpoint.
        place: Folder of the run, or the address that takes its place for checkpoints.
        meta: Plain values of the checkpoint.
        shapes: Abstract state of the run.

    Raises:
        UserError: It cannot be resumed with these settings.
    """
    # Weights of other arrays are read by the objective, and their moments kept by the optimizer.
    groups = ("optimizer.", "objective.") if meta[SHAPES] != shapes_of(shapes) else ()
    changed = changed_fields(meta["config"], config.to_dict())
    texts = [f"{name} {old!r} -> {new!r}" for name, (old, new) in changed.items() if name.startswith(("seed", *groups))]
    if texts:
        raise UserError(
            f"{place} holds a checkpoint that does not fit one of the settings that changed ({', '.join(texts)}); use "
            "the old ones or another --workdir"
        )
