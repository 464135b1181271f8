"""Checkpoints of a run; the only module that calls Orbax."""

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from cod_jax.errors import UserError, WorkError
from cod_jax.training.ranking import DEFAULT, LOSS, rank
from cod_jax.training.run_folder import (
    DamagedCheckpointError,
    Place,
    Where,
    checked_meta,
    checkpoint_directory,
    free_bytes,
    leave_out_closed_loops,
    naming_damage,
    naming_storage,
    reason_of,
    remove_unfinished,
    set_aside,
    steps_of,
    stored_numbers,
)
from cod_jax.training.state import TrainState

_logger = logging.getLogger(__name__)

# Parts of the state that are restored separately are items of their own; the rest is one item.
_OWN_ITEMS = ("params", "ema", "optimizer")
ITEMS = (*_OWN_ITEMS, "small")
# Key of a further value: the shape of every array by name.
SHAPES = "shapes"
# Space that a checkpoint takes beside its numbers: some for each array, and some for its folders.
_BYTES_PER_ARRAY, _BYTES_PER_CHECKPOINT = 2**11, 2**16


class CheckpointStore:
    """Store of training states under DIR/checkpoints, which saves in the background and atomically.

    A damaged checkpoint is set aside: its folder gets another name, so that its step can be saved again.

    Args:
        workdir: Folder of the run, or the address that takes its place for checkpoints.
        keep_latest: Number of newest checkpoints to keep.
        keep_best: Number of further checkpoints to keep, the best by validation.
        best_by: Name of the number of the validation that says which is best.
        fall_back: Whether the run may go on from an older checkpoint if the newest is damaged.

    Raises:
        DamagedCheckpointError: The validation results of all are damaged, or that of the newest is and `fall_back` is
            false.
    """

    def __init__(
        self, workdir: Where, keep_latest: int, keep_best: int, *, best_by: str = DEFAULT, fall_back: bool = True
    ):
        ranking = functools.partial(rank, best_by=best_by)
        policies = [
            checkpoint_managers.LatestN(keep_latest),
            checkpoint_managers.BestN(get_metric_fn=ranking, n=keep_best, reverse=True),
        ]
        self.directory = checkpoint_directory(workdir)
        self._workdir = workdir
        self._fall_back = fall_back
        self._saving: int | None = None
        self._failed = False
        self._set_unranked_aside()
        leave_out_closed_loops()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=ranking,  # metrics are stored only if this is set; the policy above decides
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        with naming_storage(self.directory):
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=_handlers())

    def save(
        self, step: int, state: TrainState, meta: Mapping[str, Any], validation: Mapping[str, float] | None
    ) -> None:
        """Start to save a state, whose arrays may be donated as soon as this returns.

        Every process calls it. If the step is already saved, it does nothing.

        Args:
            step: Number of steps done.
            state: Training state.
            meta: Plain values to store with it.
            validation: Numbers of this step's validation by name, or None without one; those that are not finite rank
                nothing.

        Raises:
            WorkError: There is not enough space, or this or the previous save failed.
        """
        self.wait()
        if step == self.latest_step():
            return
        self._check_space(step, state)
        items = {name: ocp.args.StandardSave(tree) for name, tree in _split(state).items()}
        numbers = {name: value for name, value in (validation or {}).items() if math.isfinite(value)}
        self._saving = step
        with self._naming_failure():
            self._manager.save(
                step,
                args=ocp.args.Composite(**items, meta=ocp.args.JsonSave({**meta, SHAPES: shapes_of(state)})),
                metrics={LOSS: numbers.get(DEFAULT), **numbers},
                force=True,
            )

    def latest_step(self) -> int | None:
        """Return the step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def meta(self, step: int) -> dict[str, Any]:
        """Return the plain values stored with a checkpoint; see `read_meta`."""
        return read_meta(self.directory, step)

    def restore_newest(
        self,
        shapes: TrainState,
        shardings: TrainState,
        check: Callable[[dict[str, Any]], None],
    ) -> tuple[int, TrainState] | None:
        """Read the newest checkpoint that all processes can read; damaged ones that are newer are set aside.

        Args:
            shapes: Abstract state.
            shardings: Shardings of the state's arrays.
            check: Function that refuses a checkpoint by its plain values, before its arrays are read.

        Returns:
            Step and state of the checkpoint, or None if there is none.

        Raises:
            DamagedCheckpointError: No checkpoint can be read, or the newest cannot be and the run may not fall back.
            UserError: The checkpoint contains another state.
        """
        found, damage = None, {}
        for step in reversed(steps_of(self._workdir)):
            try:
                check(self.meta(step))
                found = step, self.restore(step, shapes, shardings)
            except DamagedCheckpointError as error:
                damage[step] = error
            if _all_agree(step not in damage):
                break
            found = None
            damage.setdefault(
                step, DamagedCheckpointError(f"another process cannot read the checkpoint of step {step}")
            )
            self._check_fall_back(damage[step])
        if damage and found is None:
            raise self._all_damaged(damage)
        for step, error in damage.items():
            self._set_aside(step, error)
        if damage:
            _wait_for_all("damaged checkpoints are set aside")
            self._manager.reload()
        return found

    def restore(self, step: int, shapes: TrainState, shardings: TrainState) -> TrainState:
        """Read a state onto any mesh.

        Args:
            step: Step of the checkpoint.
            shapes: Abstract state.
            shardings: Shardings of the state's arrays.

        Raises:
            DamagedCheckpointError: The checkpoint is damaged.
            UserError: The checkpoint contains another state.
        """
        stored, wanted = self.meta(step)[SHAPES], shapes_of(shapes)
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
        with naming_damage(self.directory, step):
            restored = _read(self.directory, step, **items)
        return TrainState(**{name: tree for item in items for name, tree in joined(item, restored[item]).items()})

    def drop_after(self, step: int, resumed: int = 0) -> str:
        """Set the checkpoints after a step aside, which proved to be useless, and say where the run goes on.

        Args:
            step: The latest step whose state is known to serve.
            resumed: The step that the run resumed after. Its checkpoint stays even if it is later: what is wrong may
                lie in the settings or pictures, and it may be the only one.
        """
        self.wait()
        kept = max(step, resumed)
        later = [saved for saved in steps_of(self._workdir) if saved > kept and jax.process_index() == 0]
        names = [set_aside(self.directory, saved, "unusable").name for saved in later]
        aside = f" (set aside: {', '.join(names)})" if names else ""
        suspect = (
            f"; if it fails there again, remove {self.directory / str(resumed)} first" if 0 <= step < resumed else ""
        )
        return f"{self.resumption()}{aside}{suspect}"

    def resumption(self) -> str:
        """Return where the same command would go on."""
        steps = [step for step in steps_of(self._workdir) if step != self._saving]
        if not steps:
            return "the same command starts again, because nothing is saved yet"
        return f"the same command resumes after step {steps[-1]}"

    def check(self) -> None:
        """Notice a save that has ended in the background; cheap enough for every step.

        Raises:
            WorkError: It failed.
        """
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def reached_preemption(self, step: int) -> bool:
        """Return whether any process was told to stop; all processes get the same answer at the same step."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Wait for the current save.

        Raises:
            WorkError: The save failed.
        """
        if self._saving is not None:
            with self._naming_failure():
                self._manager.wait_until_finished()
            _logger.info("saved step %d in %s", self._saving, self.directory)
            self._saving = None

    def close(self) -> None:
        """Wait for the current save and release the threads.

        Raises:
            WorkError: The save failed.
        """
        try:
            self.wait()
        finally:
            self._manager.close()
            if self._failed:
                self._remove_unfinished(settle_s=0.5)

    def _remove_unfinished(self, *, settle_s: float = 0.0) -> None:
        if jax.process_index() == 0:
            remove_unfinished(self.directory, settle_s=settle_s)

    def _set_unranked_aside(self) -> None:
        """Set checkpoints aside whose validation results cannot be read, because Orbax reads those of all."""
        steps, damage = steps_of(self._workdir), {}
        for step in reversed(steps):
            try:
                stored_numbers(self.directory, step)
            except DamagedCheckpointError as error:
                damage[step] = error
        if steps and steps[-1] in damage:
            self._check_fall_back(damage[steps[-1]])
        if damage and len(damage) == len(steps):
            raise self._all_damaged(damage)
        for step, error in damage.items():
            self._set_aside(step, error)
        _wait_for_all("unranked checkpoints are set aside")

    def _check_fall_back(self, damage: DamagedCheckpointError) -> None:
        if not self._fall_back:
            raise DamagedCheckpointError(
                f"{damage}; allow older ones with --config.checkpoint.fall_back=True, or remove its folder"
            )

    def _all_damaged(self, damage: Mapping[int, DamagedCheckpointError]) -> DamagedCheckpointError:
        """Return the error about a run without a checkpoint that can be read, which never starts again by itself."""
        return DamagedCheckpointError(
            f"{next(iter(damage.values()))}, and no other can be read; use another --workdir, or remove "
            f"{self.directory} to start again"
        )

    def _set_aside(self, step: int, error: Exception) -> None:
        if jax.process_index() == 0:
            _logger.warning("%s; its folder is now %s", error, set_aside(self.directory, step, "damaged").name)

    def _check_space(self, step: int, state: TrainState) -> None:
        leaves = jax.tree.leaves(state)
        needed = sum(leaf.nbytes + _BYTES_PER_ARRAY for leaf in leaves) + _BYTES_PER_CHECKPOINT
        free = free_bytes(self.directory)
        if not _first_decides(free >= needed):
            raise WorkError(
                # So rounded that the first is the larger one.
                f"the checkpoint of step {step} needs {_megabytes(needed + 50_000)} in {self.directory}, and "
                f"{_megabytes(max(free - 50_000, 0))} are free; make room, then {self.resumption()}"
            )

    @contextlib.contextmanager
    def _naming_failure(self) -> Iterator[None]:
        """Turn whatever fails in a save into one line, and remove what it has written.

        Raises:
            WorkError: The save failed.
        """
        try:
            yield
        except Exception as error:
            step, self._saving, self._failed = self._saving, None, True
            self._remove_unfinished()
            space = free_bytes(self.directory)
            free = f", {_megabytes(space)} are free" if math.isfinite(space) else ""
            raise WorkError(
                f"the checkpoint of step {step} cannot be saved in {self.directory} ({reason_of(error)}{free}); "
                f"{self.resumption()}"
            ) from error


def read_meta(directory: Place, step: int) -> dict[str, Any]:
    """Return the plain values of a checkpoint, with the shape of every array by name as `SHAPES`.

    Raises:
        DamagedCheckpointError: They cannot be read.
    """
    with naming_damage(directory, step):
        return checked_meta(_read(directory, step, meta=ocp.args.JsonRestore())["meta"])


def read_on_host(directory: Place, step: int, item: str) -> dict[str, Any]:
    """Read one of `ITEMS` into this process's memory, from any devices; integer keys come back as strings.

    Raises:
        DamagedCheckpointError: It cannot be read.
    """
    host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    with naming_damage(directory, step):
        folder: Any = directory / str(step) / item  # any path serves, the types of Orbax ask for its own
        stored: Any = ocp.StandardCheckpointHandler().metadata(folder)
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host), dict(stored))
        return _read(directory, step, **{item: ocp.args.StandardRestore(abstract)})[item]


def _handlers() -> dict[str, Any]:
    """Return what reads and writes each item by name, so that metadata can be read before anything was restored."""
    return {**{name: ocp.StandardCheckpointHandler() for name in ITEMS}, "meta": ocp.JsonCheckpointHandler()}


def _read(directory: Place, step: int, **items: Any) -> Any:
    """Read items of a checkpoint without waiting for other processes, which may fail where this one does not."""
    folder: Any = directory / str(step)
    return ocp.CompositeCheckpointHandler(**_handlers()).restore(folder, args=ocp.args.Composite(**items))


def _all_agree(fine: bool) -> bool:
    """Return whether all processes say so."""
    if jax.process_count() == 1:
        return fine
    return bool(np.asarray(multihost_utils.process_allgather(np.int32(fine))).all())


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _first_decides(fine: bool) -> bool:
    """Return what the first process says, which may see another amount of free space than the others."""
    return fine if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.int32(fine)))


def _megabytes(size: int | float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _split(state: TrainState) -> dict[str, Any]:
    parts = dict(vars(state))
    return {**{name: parts.pop(name) for name in _OWN_ITEMS}, "small": parts}


def joined(item: str, tree: Any) -> dict[str, Any]:
    """Return one of `ITEMS` as a part of the state's dict."""
    return {item: tree} if item in _OWN_ITEMS else tree


def shapes_of(tree: Any) -> dict[str, list[int]]:
    """Return the shape of every array by name, its path joined by "/"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape) for path, leaf in leaves}
