"""Models that checkpoints of a run contain, read without its trainer, and whether its checkpoints can be read."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.errors import UserError
from cod_jax.models.functional import flatten_params
from cod_jax.models.lora import merge
from cod_jax.training.checkpoint import ITEMS, SHAPES, joined, read_meta, read_on_host, shapes_of
from cod_jax.training.ranking import DEFAULT, LOSS, best_by_of, rank
from cod_jax.training.run_folder import (
    DamagedCheckpointError,
    Where,
    checkpoint_directory,
    naming_damage,
    stages_of,
    steps_of,
    stored_numbers,
)

Weights = Literal["ema", "raw"]

_ITEM_OF_WEIGHTS: dict[str, str] = {"ema": "ema", "raw": "params"}


def load_meta(workdir: Where, step: int) -> dict[str, Any]:
    """Return the plain values of a checkpoint, such as "config".

    Raises:
        DamagedCheckpointError: They cannot be read.
    """
    return read_meta(checkpoint_directory(workdir), step)


def check_whole(workdir: Where, step: int) -> None:
    """Check a checkpoint that is not going to be restored.

    A single process reads all of it. The state of several processes may be too large for the memory of one, so there
    only missing parts are found.

    Raises:
        DamagedCheckpointError: A part is missing or cannot be read.
        FileNotFoundError: It is gone.
    """
    folder = checkpoint_directory(workdir) / str(step)
    missing = [name for name in ITEMS if not (folder / name).is_dir()]
    if missing:
        raise DamagedCheckpointError(f"the checkpoint of step {step} in {folder.parent} lacks {', '.join(missing)}")
    if jax.process_count() == 1:
        check_checkpoint(workdir, step)


def load_weights(workdir: Where, step: int) -> dict[Weights, dict[str, np.ndarray]]:
    """Return trained parameters and their moving average, with the training heads, by names such as "model/codec/...".

    Low-rank adaptations are merged into the model.

    Args:
        workdir: Folder of the run.
        step: Step of the checkpoint.

    Raises:
        DamagedCheckpointError: The checkpoint is damaged; the message says which others can be read.
    """
    directory = checkpoint_directory(workdir)
    with _saying_what_is_left(workdir, step):
        objective = read_meta(directory, step)["config"].get("objective", {})
        return {
            "raw": _flat(_merged(read_on_host(directory, step, "params"), objective)),
            "ema": _flat(_merged(read_on_host(directory, step, "ema"), objective)),
        }


def load_for_export(
    workdir: Where, weights: Weights = "ema", step: int | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """Read a model from a run without building its trainer; low-rank adaptations are merged into it.

    Args:
        workdir: Folder of the run.
        weights: "ema" for the moving average, "raw" for the trained parameters.
        step: Step of the checkpoint; by default the best by `best_by`, or the newest if none was validated.

    Returns:
        The model's config as stored by `ModelConfig.to_dict`, its parameters by name as `flatten_params` gives them,
        and facts about the run: "step", "weights", "validation_loss" (None if it was not validated),
        "validation" (all results of that validation, {} if there was none) and "config".

    Raises:
        FileNotFoundError: The folder or checkpoint does not exist.
        DamagedCheckpointError: The checkpoint is damaged; the message says which others can be read.
        UserError: `weights` is neither "ema" nor "raw".
    """
    if weights not in _ITEM_OF_WEIGHTS:
        raise UserError(f"weights must be one of {', '.join(_ITEM_OF_WEIGHTS)}, got {weights!r}")
    directory = checkpoint_directory(workdir)
    if not directory.is_dir():
        stages = stages_of(workdir)
        hint = f"one of its stages: {', '.join(stages)}" if stages else "the --workdir of a training run"
        raise FileNotFoundError(f"{workdir} holds no checkpoints; give {hint}")
    steps = steps_of(workdir)
    if not steps:
        raise FileNotFoundError(f"{directory} holds no finished checkpoint; train until the first is saved")
    if step is not None and step not in steps:
        raise FileNotFoundError(f"{directory} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}")
    numbers: dict[int, dict[str, float]] = {}
    for saved in steps if step is None else [step]:
        with _saying_what_is_left(workdir, saved):
            numbers[saved] = stored_numbers(directory, saved)
    step = best_step(numbers, best_by(workdir)) if step is None else step
    with _saying_what_is_left(workdir, step):
        meta = read_meta(directory, step)
        read = read_on_host(directory, step, _ITEM_OF_WEIGHTS[weights])
        params = _merged(read, meta["config"].get("objective", {}))["model"]
    loss = numbers[step].get(LOSS)
    measured = meta.get("validation", {})
    info = {"step": step, "weights": weights, "validation_loss": loss, "validation": measured, "config": meta["config"]}
    return meta["config"]["model"], _flat(params), info


def best_by(workdir: Where) -> str:
    """Return the name of the number that ranks a run's checkpoints, by its newest settings that can be read."""
    for step in reversed(steps_of(workdir)):
        with contextlib.suppress(DamagedCheckpointError, FileNotFoundError):
            return best_by_of(load_meta(workdir, step)["config"])
    return DEFAULT


def best_step(numbers: Mapping[int, Mapping[str, float]], best_by: str) -> int:
    """Return the best of some steps, the later of equal ones, so the newest if nothing was validated.

    Args:
        numbers: Numbers of the validation for each step, of which there is at least one.
        best_by: Name of the number that ranks them.
    """
    return min(numbers, key=lambda step: (rank(numbers[step], best_by), -step))


def check_checkpoint(workdir: Where, step: int) -> list[str]:
    """Read a whole checkpoint, one item after the other, and return the names of arrays that hold NaN or infinity.

    Raises:
        DamagedCheckpointError: Something in it cannot be read.
        FileNotFoundError: It is gone.
    """
    directory = checkpoint_directory(workdir)
    stored_numbers(directory, step)
    shapes = read_meta(directory, step)[SHAPES]
    found: dict[str, list[int]] = {}
    broken: list[str] = []
    for item in ITEMS:
        arrays = joined(item, read_on_host(directory, step, item))
        found |= shapes_of(arrays)
        broken += shapes_of(jax.tree.map(lambda array: None if _is_finite(array) else array, arrays))
    with naming_damage(directory, step):
        if missing := sorted(name for name in shapes if found.get(name) != shapes[name]):
            raise UserError(f"{len(missing)} arrays are missing or have another shape, such as {missing[0]}")
    return broken


def readable_steps(workdir: Where) -> list[int]:
    """Return the steps of the checkpoints that can be read whole; it reads all of them."""

    def is_readable(step: int) -> bool:
        try:
            check_checkpoint(workdir, step)
        except (DamagedCheckpointError, FileNotFoundError):
            return False
        return True

    return [step for step in steps_of(workdir) if is_readable(step)]


@contextlib.contextmanager
def _saying_what_is_left(workdir: Where, step: int) -> Iterator[None]:
    """Add to the error about a damaged checkpoint which others can be read."""
    try:
        yield
    except DamagedCheckpointError as error:
        others = ", ".join(str(other) for other in readable_steps(workdir) if other != step)
        way_out = f"those of {others} can be read: name one with --step, or remove the folder {step} to use the newest"
        raise DamagedCheckpointError(f"{error}; {way_out if others else 'no other can be read'}") from error


def _is_finite(array: jax.Array) -> bool:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or bool(jnp.isfinite(array).all())


def _merged(params: dict[str, Any], objective: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored parameters with low-rank adaptations, if any, merged into the model."""
    if "lora" not in params:
        return params
    model = merge(params["model"], params["lora"], objective["lora_alpha"] / objective["lora_rank"])
    return {**{part: tree for part, tree in params.items() if part != "lora"}, "model": model}


def _flat(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in flatten_params(tree).items()}
