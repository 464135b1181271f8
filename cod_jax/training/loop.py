"""Training loop, one program in the order of events."""

import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from tqdm import tqdm

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.models.functional import Params
from cod_jax.parallel import batch_sharding, check_batch_size, global_batch, make_mesh, num_batch_shards, sharding_rows
from cod_jax.parallel.processes import leaving_with_lost_processes
from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.config import TrainConfig, changed_fields, flatten
from cod_jax.training.flops import peak_flops_per_second
from cod_jax.training.frozen import check_same, digests, placed
from cod_jax.training.goodput import STEPPING, WAITING, WallTime
from cod_jax.training.initial import check_start, initial_state
from cod_jax.training.meter import Meter
from cod_jax.training.objectives.objective import Update
from cod_jax.training.out_of_memory import naming_memory
from cod_jax.training.picture_metrics import MetricLoader, no_metrics
from cod_jax.training.plan import Plan, compile_step, make_plan, step_flops
from cod_jax.training.profile import Profile
from cod_jax.training.report import Report
from cod_jax.training.results import append_result, keep_results
from cod_jax.training.resuming import as_begun, check_same_state
from cod_jax.training.run_data import open_data
from cod_jax.training.run_folder import DamagedCheckpointError, latest_step, stages_of
from cod_jax.training.saved_models import check_whole, load_meta
from cod_jax.training.skipping import SkippedSteps
from cod_jax.training.state import TrainState
from cod_jax.training.step import Metrics
from cod_jax.training.stopping import interrupt_as_termination, stop_event
from cod_jax.training.validation import build_validator, saving_if_it_fails
from cod_jax.training.watchdog import watchdog
from cod_jax.training.writers import TensorBoardWriter

_logger = logging.getLogger(__name__)

# Number of steps queued on the devices beyond the current one. Two keep the devices busy; each queued step holds its
# batch in device memory.
_STEPS_AHEAD = 2

_polls = itertools.count(1)


def train(
    config: TrainConfig,
    workdir: Path,
    *,
    load_frozen: Callable[[], Mapping[str, Params]] = dict,
    load_metrics: MetricLoader = no_metrics,
    progress: bool = False,
    profile_steps: tuple[int, int] | None = None,
) -> bool:
    """Train until the last step or until told to stop, from the last checkpoint in `workdir` if there is one.

    The same program runs on one device and on many hosts, where every process calls it.

    Args:
        config: Settings of the run.
        workdir: Folder of the run with checkpoints and TensorBoard files, shared by all processes; with
            `config.checkpoint.address` each may have its own.
        load_frozen: Function that returns the parameters of the frozen networks by name, those of
            `config.frozen_names` and the teacher. It is called only if there are steps to do.
        load_metrics: Function that returns the metrics of `config.validation.metrics`.
        progress: Whether to draw a progress bar on standard error.
        profile_steps: First and last step to trace; the trace of the first process is written beside the TensorBoard
            files.

    Returns:
        Whether the next stage may start, because the last step is done and nothing told the process to stop.

    Raises:
        UserError: The settings do not fit the data, the devices, the checkpoint or the model to start from.
        OSError: Something cannot be read or written.
        TrainingError: Too many steps in a row, or the last ones, had no finite gradients.
        WorkError: A checkpoint cannot be saved.
    """
    if is_finished(config, workdir):
        return True
    if stages := stages_of(workdir):
        raise UserError(
            f"{workdir} contains the stages {', '.join(stages)} of another run; name one of them to continue it, or "
            "use another --workdir"
        )
    place = place_of(config, workdir)
    if latest_step(place) is None:
        check_start(config)
    config = as_begun(config, place)
    mesh = make_mesh(config.mesh)
    config, batch = _check_batch(config, mesh)
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    _logger.info("devices: %d x %s, processes: %d, mesh: %s", mesh.size, _device_kind(mesh), jax.process_count(), axes)
    is_first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(naming_memory("starting"))
        watch = stack.enter_context(watchdog(config.limits.step_seconds))
        clock = WallTime(workdir if is_first else None, watch)
        batches, validation_images = open_data(config)
        stack.callback(batches.close)
        # Not before, because shards at some addresses are copied first, which may take hours.
        watch("starting")

        # Shapes before memory: the state is abstract until it is restored or created with its sharding.
        plan = make_plan(config, mesh)
        shapes, shardings = plan.shapes, plan.shardings
        given = load_frozen()
        frozen_params = placed(plan, given)
        frozen_digests = digests(plan.objective, given)
        key = jax.random.key(config.stage_seed)
        metrics = load_metrics(config.validation.metrics)
        validate = build_validator(config, plan, validation_images, metrics, key, batch)

        clock.begin("restoring")
        # The order matters: a checkpoint of this run, else a model to start from, else scratch. They never mix.
        kept = config.checkpoint
        store = CheckpointStore(place, kept.keep_latest, kept.keep_best, best_by=kept.best_by, fall_back=kept.fall_back)
        stack.callback(store.close)

        def check(meta: Mapping[str, Any]) -> None:
            _check_same_model(config, place, meta)
            check_same_state(config, place, meta, shapes)
            check_same(place, meta, frozen_digests)
            batches.set_state(meta["data"])

        resumed = store.restore_newest(shapes, shardings, check)
        if resumed is not None:
            start, state = resumed
            clock.resumed(start)
            _logger.info("resumed after step %d of %d", start, config.total_steps)
            if config.init_from:
                _logger.info("init_from is ignored, because the run has a checkpoint of its own")
        else:
            clock.begin("starting")
            if clock.num_starts > 1:
                _logger.info("the run was started before and has no checkpoint, so it begins again")
            start, state = 0, initial_state(config, plan, key, given, batches.source)
            clock.resumed(start)
        # The caller keeps no copy either, so this frees the memory of the host.
        del given

        writer = TensorBoardWriter(workdir / "tensorboard" if is_first else None, first_step=start + 1)
        stack.callback(writer.close)
        keep_results(workdir, start)
        table = parameter_overview.make_table(sharding_rows(shapes.params, shardings.params))
        _report_parameters(shapes, shardings, table, workdir)
        if start == 0:
            writer.hyper_parameters(flatten(config.to_dict()))
            writer.texts(0, {"parameters": f"```\n{table}\n```"})

        _logger.info("preparing the step; compiling takes a minute or more, unless it is in the compilation cache")
        clock.begin("compiling")
        clock.write()  # so that a start killed while compiling is counted
        begin = time.monotonic()
        with naming_memory("compiling"):
            updates = [compile_step(plan, config, update, batch) for update in plan.objective.updates]
        _logger.info("the step is ready after %.1f s", time.monotonic() - begin)
        schedule = plan.objective.schedule
        readers = config.data.num_threads, config.data.num_workers
        report = Report(writer, config.total_steps, kept.best_by, *readers)
        skipped = SkippedSteps(plan.objective.updates, config.max_consecutive_skipped)
        meter = _build_meter(clock, plan, config, mesh)
        told_to_stop = stack.enter_context(_told_to_stop(store))
        bar = stack.enter_context(
            tqdm(total=config.total_steps, initial=start, unit="step", disable=not progress, dynamic_ncols=True)
        )
        window: list[Metrics] = []
        queued: deque[tuple[int, Update, Metrics]] = deque()

        def back() -> str:
            return store.drop_after(skipped.last_good, start)

        def look(num_left: int) -> None:
            """Wait until at most so many steps are under way, and stop the run if too many were skipped."""
            while len(queued) > num_left:
                if not skipped.look(*queued.popleft()):
                    raise skipped.error(back())

        def save(measured: Mapping[str, float] | None) -> bool:
            """Start to save the state, and return whether it may be saved."""
            look(0)
            with clock.phase("saving"):
                # A state that no finite gradient follows may be useless, so it never replaces a good one. The save
                # waits for a step with finite gradients.
                if skipped.skipping:
                    return False
                _logger.info("saving step %d", done)
                clock.write()  # so that the time is counted if the process is killed while saving
                meta = {"config": config.to_dict(), "data": batches.get_state(), "frozen": frozen_digests}
                store.save(done, state, {**meta, "validation": measured or {}}, measured)
                clock.saved(done)
            return True

        taken = range(start + 1, config.total_steps + 1)
        profile = Profile(workdir / "tensorboard" if is_first else None, profile_steps, taken, lambda: look(0))
        stack.callback(profile.close)
        stack.enter_context(naming_memory("training"))
        # Last, so that it leaves before anything above waits for a process that is gone.
        stack.enter_context(leaving_with_lost_processes())
        clock.begin(STEPPING)
        clock.write()
        done, stopping, due = start, False, False
        begin = time.monotonic()
        for done in range(start + 1, config.total_steps + 1):
            store.check()
            with profile.step(done):
                with clock.phase(WAITING):
                    local = next(batches)
                # Decided on the host, because each update is a program of its own.
                index = schedule[(done - 1) % len(schedule)]
                state, metrics = updates[index](state, frozen_params, global_batch(local, batch))
                window.append(metrics)
                queued.append((done, plan.objective.updates[index], metrics))
                look(0 if done == start + 1 else _STEPS_AHEAD)  # the first is waited for, to tell its time
            bar.update()
            if done == start + 1:
                _logger.info("the first step of this start took %.1f s, with its data", time.monotonic() - begin)

            is_last = done == config.total_steps
            stopping = told_to_stop()
            if done % config.log.every_steps == 0 or is_last or stopping:
                values = jax.device_get(window)
                report.training(done, values, meter.report(len(window)), batches.skipped)
                report.time(done, clock)
                window.clear()
            measured: dict[str, float] | None = None
            # A run that is told to stop skips the validation, unless this was its last step.
            if validate.enabled and (is_last or (not stopping and done % config.validation.every_steps == 0)):
                save_first = None if is_last or jax.process_count() > 1 else save
                with saving_if_it_fails(save_first), naming_memory("validating"), clock.phase("validating"):
                    scalars, pictures = validate({**state.params, **state.ema}, frozen_params)
                    report.validation(done, scalars, pictures)
                    append_result(workdir, done, scalars)
                measured = {name: value for name, value in scalars.items() if math.isfinite(value)}
            is_validated = measured is not None
            due = due or done % config.checkpoint.every_steps == 0 or is_validated or is_last or stopping
            if due:
                due = not save(measured)
            if stopping and not is_last:
                unsaved = ", whose update was skipped, so it is not saved" if due else ""
                _logger.info("stopping as told after step %d%s; the same command resumes", done, unsaved)
                break
        with clock.phase("saving"):
            store.wait()
        if due and done == config.total_steps:
            raise skipped.error(f"the last step is one of them, so it is not saved; raise total_steps, and {back()}")
        report.time(done, clock)
        _logger.info("%s", clock.summary())
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("end of training")
        # The signal may have come during the last validation.
        return not (stopping or told_to_stop())


def place_of(config: TrainConfig, workdir: Path) -> str:
    """Return the run folder, or the address that takes its place for checkpoints."""
    return config.checkpoint.address or str(workdir)


def is_finished(config: TrainConfig, workdir: Path) -> bool:
    """Return whether all steps of a run are done, and log it if so; every process calls this.

    Raises:
        UserError: The run trained another model.
    """
    place = place_of(config, workdir)
    step = latest_step(place)
    if step is None or step < config.total_steps:
        return False
    config = as_begun(config, place)
    try:
        meta = load_meta(place, step)
        check_whole(place, step)
    except DamagedCheckpointError:
        return False  # the run goes on from an older checkpoint, and says so
    _check_same_model(config, place, meta)
    _logger.info("nothing to do in %s: step %d of %d is done", place, step, config.total_steps)
    return True


def check(config: TrainConfig, load_metrics: MetricLoader = no_metrics) -> None:
    """Check that settings fit the devices and the data, in advance of a later run.

    Args:
        config: Settings of the run.
        load_metrics: As for `train`.

    Raises:
        UserError: The settings do not fit, as in `train`.
        OSError: Something cannot be read.
    """
    mesh = make_mesh(config.mesh)
    config, batch = _check_batch(config, mesh)
    plan = make_plan(config, mesh)
    batches, held_out = open_data(config)
    with contextlib.closing(batches):
        metrics = load_metrics(config.validation.metrics)
        build_validator(config, plan, held_out, metrics, jax.random.key(config.stage_seed), batch)
        next(batches)


def _check_batch(config: TrainConfig, mesh: Mesh) -> tuple[TrainConfig, NamedSharding]:
    """Return the settings with the parts of a batch that these devices take, and the sharding of each part."""
    batch = batch_sharding(mesh, config.sharding.batch)
    config = config.shared_by(num_batch_shards(batch))
    check_batch_size("batch_size / accumulation_steps", config.batch_size // config.accumulation_steps, batch)
    return config, batch


def _check_same_model(config: TrainConfig, place: str, meta: Mapping[str, Any]) -> None:
    """Log the settings that changed since a checkpoint, and refuse another model."""
    changed = changed_fields(meta["config"], config.to_dict())
    stored_kind = meta["config"].get("objective", {}).get("kind", "pretrain")
    if stored_kind != config.objective.kind:
        raise UserError(
            f"{place} holds a checkpoint of another objective, {stored_kind} instead of {config.objective.kind}; use "
            "another --workdir"
        )
    texts = {name: f"{name} {old!r} -> {new!r}" for name, (old, new) in changed.items()}
    other_model = [text for name, text in texts.items() if name.startswith("model.")]
    if other_model:
        raise UserError(
            f"{place} holds a checkpoint of another model ({', '.join(other_model)}); use the old settings or "
            "another --workdir"
        )
    if texts:
        _logger.info("settings changed since the checkpoint: %s", ", ".join(texts.values()))


def _report_parameters(shapes: TrainState, shardings: Any, table: str, workdir: Path) -> None:
    """Log the number of parameters and the size of the whole state, and write the table of parameters to a file."""
    file = workdir / "parameters.txt"
    if jax.process_index() == 0:
        files.write_bytes(file, f"{table}\n".encode())
    sizes = {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in shapes.params.items()}
    per_device = sum(row.bytes_per_device for row in sharding_rows(shapes, shardings)) / 2**20
    parts = ", ".join(f"{size:,} of {part}" for part, size in sizes.items() if size)
    _logger.info("parameters: %s; the state takes %s MiB per device; listed in %s", parts, f"{per_device:,.1f}", file)


def _build_meter(clock: WallTime, plan: Plan, config: TrainConfig, mesh: Mesh) -> Meter:
    """Return the meter, with utilisation if the peak rate of the devices is known."""
    peak = peak_flops_per_second(_device_kind(mesh))
    if peak is None:
        return Meter(clock, config.batch_size, None, None)
    flops, schedule = step_flops(plan, config), plan.objective.schedule
    return Meter(clock, config.batch_size, sum(flops[index] for index in schedule) // len(schedule), peak * mesh.size)


def _device_kind(mesh: Mesh) -> str:
    return mesh.devices.flat[0].device_kind


@contextlib.contextmanager
def _told_to_stop(store: CheckpointStore) -> Iterator[Callable[[], bool]]:
    """Give a function that tells after every step whether to stop, with the same answer in every process."""
    if jax.process_count() > 1:
        # jax.distributed catches SIGTERM itself and informs all processes, so that they stop at the same step.
        with interrupt_as_termination():
            # The count goes on over the stages of a process, because numbers must only increase.
            yield lambda: store.reached_preemption(next(_polls))
        return
    with stop_event() as event:
        yield event.is_set
