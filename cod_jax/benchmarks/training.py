"""Optimizer steps of a training config, on one device."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from cod_jax import huge_pages
from cod_jax.benchmarks import ceilings, timing
from cod_jax.benchmarks.process import in_own_process
from cod_jax.errors import WorkError
from cod_jax.evaluation.processes import peak_memory_bytes


def report_on_training(
    config: str, changes: Sequence[str], *, image_size: int, batch_size: int, repeats: int
) -> dict[str, Any]:
    """Measure the steps of a training config.

    Args:
        config: FILE[:OPTIONS].
        changes: Arguments `--config.FIELD=VALUE`.
        image_size: Pixels per side.
        batch_size: Images per step.
        repeats: Measured steps of each kind.

    Returns:
        JSON values: "system", "model" and "results", one for each kind of step.

    Raises:
        UserError: The config cannot be used.
        WorkError: A loss is not finite, or a process died.
    """
    job = {
        "config": config,
        "changes": list(changes),
        "image_size": image_size,
        "batch_size": batch_size,
        "repeats": repeats,
    }
    # Each kind in a process of its own, because a peak of memory is that of a process.
    environment = huge_pages.environment()  # as `cod train` starts
    first = in_own_process(measure_training, {**job, "update": 0}, environment)
    others = [
        in_own_process(measure_training, {**job, "update": number}, environment)
        for number in range(1, first["num_updates"])
    ]
    return {
        "system": first["system"],
        "model": first["model"],
        "results": [measured["result"] for measured in (first, *others)],
    }


def measure_training(job: dict[str, Any]) -> dict[str, Any]:
    """Time optimizer steps of one kind of a training config on random pictures, in this process.

    Args:
        job: "config" as FILE[:OPTIONS], "changes" of its fields, "image_size" in pixels, "batch_size", "repeats", and
            "update", the place of the kind of step among the objective's.

    Returns:
        JSON values: "system", "model", "num_updates" of the objective and "result": its name as "update", sizes,
        "loss_terms", the timing "step" of steps that are each waited for, the "ceilings" of the device and what a step
        reaches of them as "roofline" (see `ceilings`), its "share_of_peak" of a device whose bfloat16 rate is known
        (None elsewhere, and for float32), "images_per_second" of as many steps that are
        handed to the device without waiting, "compile_seconds", and of this process "peak_memory_bytes" and
        "peak_device_memory_bytes".

    Raises:
        UserError: The config cannot be used.
        WorkError: A loss is not finite.
    """
    timing.disable_compilation_cache()
    import jax
    import jax.numpy as jnp

    from cod_jax.models.functional import count_params
    from cod_jax.parallel import MeshConfig, batch_sharding, make_mesh
    from cod_jax.training.config import TrainConfig
    from cod_jax.training.config_files import read_settings
    from cod_jax.training.plan import make_plan

    settings = read_settings(job["config"], job["changes"])
    settings["data"]["image_size"], settings["batch_size"] = job["image_size"], job["batch_size"]
    config = TrainConfig.from_dict(settings, trusted=True)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    plan = make_plan(config, mesh)
    frozen = jax.jit(lambda: random_params(plan.frozen_shapes), out_shardings=plan.frozen_shardings)()

    def init(key: jax.Array, frozen: Any) -> Any:
        state = plan.init(key)
        # Copies, because a step gives the memory of its state away.
        parts = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), plan.objective.parts_from(frozen))
        return dataclasses.replace(state, params={**state.params, **parts})

    state = jax.jit(init, out_shardings=plan.shardings)(jax.random.key(config.seed), frozen)
    update = plan.objective.updates[job["update"]]
    return {
        "system": timing.system(),
        "model": {
            "name": " ".join([job["config"], *job["changes"]]),
            "parameters": count_params(plan.objective.functional.shapes),
            "dtype": config.compute.dtype,
            "config": config.model.to_dict(),
        },
        "num_updates": len(plan.objective.updates),
        "result": _measure(
            plan, config, update, state, frozen, batch_sharding(mesh, config.sharding.batch), job["repeats"]
        ),
    }


def random_params(shapes: Any) -> Any:
    """Small numbers for parameters whose files are large; with zeros GPUs would draw less power and run faster."""
    import jax

    leaves, tree = jax.tree.flatten(shapes)
    # The generator that compiles fastest.
    keys = jax.random.split(jax.random.key(0, impl="rbg"), len(leaves))
    return tree.unflatten(
        0.03 * jax.random.uniform(key, leaf.shape, leaf.dtype, minval=-1)
        for key, leaf in zip(keys, leaves, strict=True)
    )


def _measure(
    plan: Any, config: Any, update: Any, state: Any, frozen: Any, sharding: Any, repeats: int
) -> dict[str, Any]:
    """Time one kind of step, which trains the state on."""
    import jax
    import numpy as np

    from cod_jax.training.flops import peak_flops_per_second
    from cod_jax.training.plan import compile_step, step_flops

    pixels = np.random.default_rng(0).integers(0, 256, plan.batch_shape.shape, np.uint8)
    batch = {"image": jax.device_put(pixels, sharding)}
    start, start_cpu = time.perf_counter(), time.process_time()
    compiled = compile_step(plan, config, update, sharding)
    compile_seconds, compile_cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    # Where updates take turns, their numbers carry their names.
    scope = f"{update.name}/" if len(plan.objective.updates) > 1 else ""
    metrics = {}

    def step() -> None:
        nonlocal state, metrics
        state, metrics = compiled(state, frozen, batch)

    def step_to_the_end() -> None:
        step()
        jax.block_until_ready(metrics)

    # In turn, so that what disturbs the steps disturbs the ceilings too.
    calls = {"step": step_to_the_end, **ceilings.calls(config.compute.dtype)}
    timings, _ = timing.time_calls(calls, repeats)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    jax.block_until_ready(metrics)
    seconds = time.perf_counter() - start
    if metrics["skipped"]:
        raise WorkError(
            "expected a step with a finite loss and gradients to measure, got one that was skipped; change the config"
        )
    prefix = f"{scope}loss/"
    ceiling = ceilings.rates(timings, jax.default_backend())
    flops = step_flops(plan, config)[plan.objective.updates.index(update)]
    reached = ceilings.compared(timings["step"]["median_seconds"], flops, ceilings.bytes_of(compiled), ceiling)
    peak = peak_flops_per_second(jax.devices()[0].device_kind) if config.compute.dtype == "bfloat16" else None
    return {
        "update": update.name,
        "image_size": config.data.image_size,
        "batch_size": config.batch_size,
        "loss_terms": sorted(name.removeprefix(prefix) for name in metrics if name.startswith(prefix)),
        "step": timings["step"],
        "ceilings": ceiling,
        "roofline": reached,
        "share_of_peak": None if peak is None else reached["flops_per_second"] / peak,
        "images_per_second": config.batch_size * repeats / seconds,
        "compile_seconds": compile_seconds,
        "compile_cpu_seconds": compile_cpu_seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_device_memory_bytes": timing.peak_device_memory_bytes(),
    }
