"""Optimizer steps of a training config, on one device."""

import time
from typing import Any

from cod_jax.benchmarks import timing


def measure_training(job: dict[str, Any]) -> dict[str, Any]:
    """Time the optimizer steps of a training config on random pictures, in this process.

    Args:
        job: "arguments" of the command line for the config, "image_size" in pixels, "batch_size" and "repeats".

    Returns:
        JSON values: "system", "model" and "results": for each kind of step its name as "update", sizes, "loss_terms",
        the "step" timing, "images_per_second", "compile_seconds", "peak_memory_bytes".

    Raises:
        ValueError: the config cannot be used, or a loss is not finite.
    """
    timing.disable_compilation_cache()
    import jax

    from cod_jax import train
    from cod_jax.models.functional import count_params
    from cod_jax.parallel import MeshConfig, batch_sharding, make_mesh
    from cod_jax.training.config import TrainConfig
    from cod_jax.training.plan import make_plan

    try:
        settings = train.parse_arguments(job["arguments"]).config.to_dict()
    except train.UsageError as error:
        raise ValueError(str(error)) from error
    settings["data"]["image_size"], settings["batch_size"] = job["image_size"], job["batch_size"]
    config = TrainConfig.from_dict(settings)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    plan = make_plan(config, mesh)
    held = {
        "state": jax.jit(plan.init, out_shardings=plan.shardings)(jax.random.key(config.seed)),
        # Their values do not change the time, and their files are large.
        "frozen": jax.jit(lambda: _zeros(plan.frozen_shapes), out_shardings=plan.frozen_shardings)(),
        "batch": batch_sharding(mesh, config.sharding.batch),
    }
    return {
        "system": timing.system(),
        "model": {
            "name": " ".join(job["arguments"]).removeprefix("--config="),
            "parameters": count_params(plan.objective.functional.shapes),
            "dtype": config.compute.dtype,
            "config": config.model.to_dict(),
        },
        "results": [_measure(plan, config, update, held, job["repeats"]) for update in plan.objective.updates],
    }


def _zeros(shapes: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _measure(plan: Any, config: Any, update: Any, held: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Time one kind of step; it trains the state in `held` on."""
    import jax
    import numpy as np

    from cod_jax.training.plan import compile_step

    pixels = np.random.default_rng(0).integers(0, 256, plan.batch_shape.shape, np.uint8)
    batch = {"image": jax.device_put(pixels, held["batch"])}
    start, start_cpu = time.perf_counter(), time.process_time()
    compiled = compile_step(plan, config, update, held["batch"])
    compile_seconds, compile_cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    # Where updates take turns, their numbers carry their names.
    scope = f"{update.name}/" if len(plan.objective.updates) > 1 else ""
    losses, metrics = [], {}

    def step() -> None:
        nonlocal metrics
        held["state"], metrics = compiled(held["state"], held["frozen"], batch)
        losses.append(float(jax.block_until_ready(metrics)[f"{scope}loss"]))

    timings, _ = timing.time_calls({"step": step}, repeats)
    if not np.isfinite(losses).all():
        raise ValueError("the loss is not finite; a step that is skipped is no measurement: change the config")
    prefix = f"{scope}loss/"
    return {
        "update": update.name,
        "image_size": config.data.image_size,
        "batch_size": config.batch_size,
        "loss_terms": sorted(name.removeprefix(prefix) for name in metrics if name.startswith(prefix)),
        "step": timings["step"],
        "images_per_second": config.batch_size / timings["step"]["median_seconds"],
        "compile_seconds": compile_seconds,
        "compile_cpu_seconds": compile_cpu_seconds,
        "peak_memory_bytes": timing.peak_memory_bytes(),
        "peak_device_memory_bytes": timing.peak_device_memory_bytes(),
    }
