"""Memory of a run on each device."""

import math
from typing import Any

import jax

from cod_jax.parallel import MeshConfig, abstract_mesh, batch_sharding, check_batch_size, make_mesh, sharding_rows
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import compile_step, make_plan

COLUMNS = ("parameters", "average", "optimizer", "frozen", "total")


def bytes_per_device(config: TrainConfig, mesh: tuple[int, int, int], *, compiled: bool = False) -> list[int]:
    """Return how many bytes a run holds on each device, from shapes and shardings.

    Args:
        config: Settings of the run.
        mesh: Devices per mesh axis: data, fsdp and tensor. They need not exist unless the step is compiled.
        compiled: Whether to compile the step too.

    Returns:
        Bytes of the parameters, their average, the optimizer, the frozen networks and all together, as in `COLUMNS`. A
        compiled step adds the bytes of its temporary arrays.

    Raises:
        UserError: The settings do not fit the mesh.
    """
    devices = MeshConfig(*mesh)
    where = make_mesh(devices, jax.devices()[: math.prod(mesh)]) if compiled else abstract_mesh(devices)
    plan = make_plan(config, where)

    def held(shapes: Any, shardings: Any) -> int:
        return sum(row.bytes_per_device for row in sharding_rows(shapes, shardings))

    items = ("params", "ema", "optimizer")
    parts = [held(getattr(plan.shapes, item), getattr(plan.shardings, item)) for item in items]
    frozen = held(plan.frozen_shapes, plan.frozen_shardings)
    result = [*parts, frozen, held(plan.shapes, plan.shardings) + frozen]
    if compiled:
        batch = batch_sharding(make_mesh(devices, jax.devices()[: math.prod(mesh)]), config.sharding.batch)
        check_batch_size("batch_size / accumulation_steps", config.batch_size // config.accumulation_steps, batch)
        steps = [compile_step(plan, config, update, batch) for update in plan.objective.updates]
        result.append(max(step.memory_analysis().temp_size_in_bytes for step in steps))  # pyright: ignore[reportFunctionMemberAccess]
    return result


def in_use() -> dict[str, float]:
    """Return the memory of the fullest device of this process, in bytes, now and at its highest; {} on CPUs.

    The keys are "memory/bytes_in_use" and "memory/peak_bytes_in_use".
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    names = ("bytes_in_use", "peak_bytes_in_use")
    return {f"memory/{name}": float(max(s[name] for s in stats)) for name in names if all(name in s for s in stats)}
