"""Checkpoints of a run; the only module that calls Orbax."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from cod_jax.errors import UserError
from cod_jax.models.functional import flatten_params
from cod_jax.models.lora import merge
from cod_jax.training.state import TrainState

Weights = Literal["ema", "raw"]

# Parts of the state that are restored separately are items of their own; the rest is one item.
_OWN_ITEMS = ("params", "ema", "optimizer")
_ITEM_OF_WEIGHTS: dict[str, str] = {"ema": "ema", "raw": "params"}
# Keys of further values: the metric that ranks checkpoints, and the shape of every array by name.
_LOSS = "validation_loss"
_SHAPES = "shapes"


class CheckpointStore:
    """Store of training states under DIR/checkpoints, which saves in the background and atomically.

    Args:
        workdir: Folder of the run.
        keep_latest: Number of newest checkpoints to keep.
        keep_best: Number of further checkpoints to keep, those with the lowest validation loss.
    """

    def __init__(self, workdir: Path, keep_latest: int, keep_best: int):
        policies = [
            checkpoint_managers.LatestN(keep_latest),
            checkpoint_managers.BestN(get_metric_fn=_validation_loss, n=keep_best, reverse=True),
        ]
        self.directory = checkpoint_directory(workdir)
        self._manager = _build_manager(
            self.directory,
            ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=_validation_loss,  # metrics are stored only if this is set; the policy above decides
                best_mode="min",
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any], validation_loss: float | None) -> None:
        """Start to save a state, whose arrays may be donated as soon as this returns.

        Every process calls it. If the step is already saved, it does nothing.

        Args:
            step: Number of steps done.
            state: Training state.
            meta: Plain values to store with it.
            validation_loss: Validation loss of this step, or None without a validation.
        """
        if step == self.latest_step():
            return
        items = {name: ocp.args.StandardSave(tree) for name, tree in _split(state).items()}
        loss = validation_loss if validation_loss is not None and math.isfinite(validation_loss) else None
        self._manager.save(
            step,
            args=ocp.args.Composite(**items, meta=ocp.args.JsonSave({**meta, _SHAPES: _shapes(state)})),
            metrics={_LOSS: loss},
            force=True,
        )

    def latest_step(self) -> int | None:
        """Return the step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def meta(self, step: int) -> dict[str, Any]:
        """Return the plain values stored with a checkpoint."""
        return _restore_meta(self._manager, step)

    def restore(self, step: int, shapes: TrainState, shardings: TrainState) -> TrainState:
        """Read a state onto any mesh.

        Args:
            step: Step of the checkpoint.
            shapes: Abstract state.
            shardings: Shardings of the state's arrays.

        Raises:
            UserError: The checkpoint contains another state, or is damaged.
        """
        stored, wanted = self.meta(step)[_SHAPES], _shapes(shapes)
        if stored != wanted:
            names = sorted(name for name in stored.keys() | wanted if stored.get(name) != wanted.get(name))
            first = f"expected {wanted.get(names[0], 'nothing')} for {names[0]}, got {stored.get(names[0], 'nothing')}"
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} does not fit this config: {first}, and "
                f"{len(names) - 1} more differ; use the config that it was made with, or another --workdir"
            )
        abstract = jax.tree.map(
            lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes, shardings
        )
        items = {name: ocp.args.StandardRestore(tree) for name, tree in _split(abstract).items()}
        with _naming_damage(self.directory, step):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return TrainState(**{name: tree for item in items for name, tree in _joined(item, restored[item]).items()})

    def reached_preemption(self, step: int) -> bool:
        """Return whether any process was told to stop; all processes get the same answer at the same step."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Wait for the current save.

        Raises:
            OSError: The save failed.
        """
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the current save and release the threads."""
        self._manager.close()


def checkpoint_directory(workdir: Path) -> Path:
    """Return the folder of a run's checkpoints, absolute as Orbax requires."""
    return Path(workdir).absolute() / "checkpoints"


def latest_step(workdir: Path) -> int | None:
    """Return the step of a run's newest checkpoint, or None if there is none yet.

    This only lists the folder. All processes of a run would have to open a manager together, and they may not see a new
    folder at the same time. Orbax renames a complete checkpoint to its number.
    """
    directory = checkpoint_directory(workdir)
    steps = [int(path.name) for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
    return max(steps, default=None)


@contextlib.contextmanager
def errors_that_name(setting: str, path: Path) -> Iterator[None]:
    """Name the setting in errors about a folder that is neither a model folder nor the work folder of a run.

    Raises:
        UserError: The folder cannot be read, or contains several stages.
    """
    if stages := stages_of(path):
        raise UserError(f"{setting} contains the stages {', '.join(stages)}; name one of them")
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting} must be the work folder of a run or a model folder: {error}") from error


def stages_of(workdir: Path) -> list[str]:
    """Return the names of the stages in a work folder; none if the run has only one."""
    return sorted(path.parent.name for path in workdir.glob("stage*/checkpoints"))


def load_meta(workdir: Path, step: int) -> dict[str, Any]:
    """Return the plain values of a checkpoint; all processes of a run call it."""
    with _build_manager(checkpoint_directory(workdir), ocp.CheckpointManagerOptions(create=False)) as manager:
        return _restore_meta(manager, step)


def load_weights(workdir: Path, step: int) -> dict[Weights, dict[str, np.ndarray]]:
    """Return trained parameters and their moving average, with the training heads, by names such as "model/codec/...".

    Low-rank adaptations are merged into the model.

    Args:
        workdir: Folder of the run.
        step: Step of the checkpoint.

    Raises:
        UserError: The checkpoint is damaged.
    """
    with _build_manager(checkpoint_directory(workdir), ocp.CheckpointManagerOptions(create=False)) as manager:
        objective = _restore_meta(manager, step)["config"].get("objective", {})
        return {
            "raw": _flat(_merged(_restore_on_host(manager, step, "params"), objective)),
            "ema": _flat(_merged(_restore_on_host(manager, step, "ema"), objective)),
        }


def load_for_export(
    workdir: Path, weights: Weights = "ema", step: int | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """Read a model from a run without building its trainer; low-rank adaptations are merged into it.

    Args:
        workdir: Folder of the run.
        weights: "ema" for the moving average, "raw" for the trained parameters.
        step: Step of the checkpoint; by default the one with the lowest validation loss, or the newest if none was
            validated.

    Returns:
        The model's config as stored by `ModelConfig.to_dict`, its parameters by name as `flatten_params` gives them,
        and facts about the run: "step", "weights", "validation_loss" (None if it was not validated) and "config".

    Raises:
        FileNotFoundError: The folder or checkpoint does not exist.
        UserError: `weights` is neither "ema" nor "raw", or the checkpoint is damaged.
    """
    if weights not in _ITEM_OF_WEIGHTS:
        raise UserError(f"weights must be one of {', '.join(_ITEM_OF_WEIGHTS)}, got {weights!r}")
    directory = checkpoint_directory(workdir)
    if not directory.is_dir():
        stages = stages_of(Path(workdir))
        hint = f"one of its stages: {', '.join(stages)}" if stages else "the --workdir of a training run"
        raise FileNotFoundError(f"{workdir} holds no checkpoints; give {hint}")
    with _build_manager(directory, ocp.CheckpointManagerOptions(create=False)) as manager:
        losses: dict[int, float] = {
            saved: _validation_loss(manager.metrics(saved)) for saved in sorted(manager.all_steps())
        }
        if not losses:
            raise FileNotFoundError(f"{directory} holds no finished checkpoint; train until the first is saved")
        if step is None:
            # The later of equal losses, so the newest if nothing was validated.
            step = min(losses, key=lambda saved: (losses[saved], -saved))
        if step not in losses:
            raise FileNotFoundError(
                f"{directory} has no checkpoint of step {step}; it has {', '.join(map(str, losses))}"
            )
        item = _ITEM_OF_WEIGHTS[weights]
        meta = _restore_meta(manager, step)
        params = _merged(_restore_on_host(manager, step, item), meta["config"].get("objective", {}))["model"]
    loss = losses[step] if math.isfinite(losses[step]) else None
    info = {"step": step, "weights": weights, "validation_loss": loss, "config": meta["config"]}
    return meta["config"]["model"], _flat(params), info


def _build_manager(directory: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    # Named handlers allow reading metadata before anything was saved or restored.
    handlers = {name: ocp.StandardCheckpointHandler() for name in (*_OWN_ITEMS, "small")}
    return ocp.CheckpointManager(
        directory, options=options, item_handlers={**handlers, "meta": ocp.JsonCheckpointHandler()}
    )


def _restore_meta(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    with _naming_damage(manager.directory, step):
        return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]


@contextlib.contextmanager
def _naming_damage(directory: Any, step: int) -> Iterator[None]:
    """Name the checkpoint in errors about one that cannot be read."""
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the checkpoint of step {step} in {directory} is damaged ({first_line}); remove its folder "
            f"{step} to go on from an older one"
        ) from error


def _restore_on_host(manager: ocp.CheckpointManager, step: int, item: str) -> dict[str, Any]:
    """Read one item into this process's memory, from any devices; integer keys come back as strings."""
    host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    abstract = jax.tree.map(
        lambda stored: jax.ShapeDtypeStruct(stored.shape, stored.dtype, sharding=host),
        dict(manager.item_metadata(step)[item]),
    )
    with _naming_damage(manager.directory, step):
        return manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}))[item]


def _merged(params: dict[str, Any], objective: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored parameters with low-rank adaptations, if any, merged into the model."""
    if "lora" not in params:
        return params
    model = merge(params["model"], params["lora"], objective["lora_alpha"] / objective["lora_rank"])
    return {**{part: tree for part, tree in params.items() if part != "lora"}, "model": model}


def _split(state: TrainState) -> dict[str, Any]:
    parts = dict(vars(state))
    return {**{name: parts.pop(name) for name in _OWN_ITEMS}, "small": parts}


def _joined(item: str, tree: Any) -> dict[str, Any]:
    return {item: tree} if item in _OWN_ITEMS else tree


def _flat(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in flatten_params(tree).items()}


def _validation_loss(metrics: Any) -> float:
    """Return the metric that ranks a checkpoint; a checkpoint without a validation ranks last."""
    loss = (metrics or {}).get(_LOSS)
    return math.inf if loss is None else loss


def _shapes(state: TrainState) -> dict[str, list[int]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape) for path, leaf in leaves}
