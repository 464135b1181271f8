"""Checkpoints of a run: the only caller of Orbax."""

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

# Parts of the state that are worth restoring by themselves have items of their own; the rest goes together.
_OWN_ITEMS = ("params", "ema", "optimizer")
_ITEM_OF_WEIGHTS: dict[str, str] = {"ema": "ema", "raw": "params"}
# Keys of what is stored besides: the metric that ranks checkpoints, and the shape of every array by name.
_LOSS = "validation_loss"
_SHAPES = "shapes"


class CheckpointStore:
    """Saves and restores training states under DIR/checkpoints, in the background and all or nothing.

    Args:
        workdir: Folder of the run.
        keep_latest: How many of the newest checkpoints are kept.
        keep_best: How many of those with the lowest validation loss are kept besides.
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
        """Start to save a state; the arrays may be donated as soon as this returns.

        Does nothing if the step is saved already. Every process calls it.

        Args:
            step: Steps that the state has behind it.
            state: The training state.
            meta: Plain values stored beside it.
            validation_loss: Of this step, if there was a validation.
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
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    def meta(self, step: int) -> dict[str, Any]:
        """The plain values stored with a checkpoint."""
        return _restore_meta(self._manager, step)

    def restore(self, step: int, shapes: TrainState, shardings: TrainState) -> TrainState:
        """Read a state onto any mesh.

        Args:
            step: The checkpoint.
            shapes: Abstract state.
            shardings: Where its arrays go.

        Raises:
            UserError: The checkpoint holds another state.
        """
        stored, wanted = self.meta(step)[_SHAPES], _shapes(shapes)
        if stored != wanted:
            names = sorted(name for name in stored.keys() | wanted if stored.get(name) != wanted.get(name))
            first = f"{names[0]} is {stored.get(names[0], 'missing')} in it and {wanted.get(names[0], 'unknown')} here"
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
        """Whether one of the processes was told to stop; the answer is the same in all of them at the same step."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Wait for the save under way.

        Raises:
            OSError: It failed.
        """
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the save under way and release the threads."""
        self._manager.close()


def checkpoint_directory(workdir: Path) -> Path:
    """Folder of a run's checkpoints, absolute as Orbax wants it."""
    return Path(workdir).absolute() / "checkpoints"


def latest_step(workdir: Path) -> int | None:
    """Step of a run's newest checkpoint; None if there is none yet.

    A look at the folder: opening a manager is something that all processes of a run have to do together, and they may
    not see a new folder at the same time. Orbax gives a checkpoint its number by renaming it when it is complete.
    """
    directory = checkpoint_directory(workdir)
    steps = [int(path.name) for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
    return max(steps, default=None)


@contextlib.contextmanager
def errors_that_name(setting: str, path: Path) -> Iterator[None]:
    """Say which setting names a folder that is neither a model folder nor the work folder of a run.

    Raises:
        UserError: The folder cannot be read, or holds several stages, of which one has to be named.
    """
    if stages := stages_of(path):
        raise UserError(f"{setting} holds the stages {', '.join(stages)}; name one of them")
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting} is neither the work folder of a run nor a model folder: {error}") from error


def stages_of(workdir: Path) -> list[str]:
    """Names of the stages in the folder of a run of several."""
    return sorted(path.parent.name for path in workdir.glob("stage*/checkpoints"))


def load_meta(workdir: Path, step: int) -> dict[str, Any]:
    """The plain values of a checkpoint; all processes of a run call it."""
    with _build_manager(checkpoint_directory(workdir), ocp.CheckpointManagerOptions(create=False)) as manager:
        return _restore_meta(manager, step)


def load_weights(workdir: Path, step: int) -> dict[Weights, dict[str, np.ndarray]]:
    """Parameters as trained and their moving average, with the training heads, by name such as "model/codec/...".

    Low-rank adaptations are merged into the model.

    Args:
        workdir: Folder of the run.
        step: The checkpoint.

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
    """Read a model out of a run without building its trainer; low-rank adaptations are merged into it.

    Args:
        workdir: Folder of the run.
        weights: "ema" for the moving average, "raw" for the parameters as trained.
        step: Which checkpoint; by default the one with the lowest validation loss, or the newest if none was validated.

    Returns:
        The model's config as stored by `ModelConfig.to_dict`, its parameters by name as `flatten_params` gives them,
        and facts about the run: "step", "weights", "validation_loss" (None if it was not validated) and "config".

    Raises:
        FileNotFoundError: There is no such folder or checkpoint.
        UserError: `weights` is neither "ema" nor "raw".
    """
    if weights not in _ITEM_OF_WEIGHTS:
        raise UserError(f"weights is {weights!r}; it must be one of {', '.join(_ITEM_OF_WEIGHTS)}")
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
            # The later of equal ones, so the newest where nothing was validated.
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
    # With the handlers named, metadata can be read before anything was saved or restored.
    handlers = {name: ocp.StandardCheckpointHandler() for name in (*_OWN_ITEMS, "small")}
    return ocp.CheckpointManager(
        directory, options=options, item_handlers={**handlers, "meta": ocp.JsonCheckpointHandler()}
    )


def _restore_meta(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    with _naming_damage(manager.directory, step):
        return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]


@contextlib.contextmanager
def _naming_damage(directory: Any, step: int) -> Iterator[None]:
    """Say which checkpoint cannot be read, and what to do about it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the checkpoint of step {step} in {directory} is damaged ({first_line}); remove its folder "
            f"{step} to go on from an older one"
        ) from error


def _restore_on_host(manager: ocp.CheckpointManager, step: int, item: str) -> dict[str, Any]:
    """One item in this process's memory, whatever devices wrote it; integer keys come back as strings."""
    host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    abstract = jax.tree.map(
        lambda stored: jax.ShapeDtypeStruct(stored.shape, stored.dtype, sharding=host),
        dict(manager.item_metadata(step)[item]),
    )
    with _naming_damage(manager.directory, step):
        return manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}))[item]


def _merged(params: dict[str, Any], objective: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as stored, with low-rank adaptations merged into the model, if there are any."""
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
    """The metric by which a checkpoint is ranked; one without a validation ranks last."""
    loss = (metrics or {}).get(_LOSS)
    return math.inf if loss is None else loss


def _shapes(state: TrainState) -> dict[str, list[int]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape) for path, leaf in leaves}
