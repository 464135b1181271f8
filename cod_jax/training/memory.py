"""Memory of a run on each device."""

import dataclasses
import math
from typing import Any

import jax

from cod_jax.errors import UserError
from cod_jax.parallel import (
    MeshConfig,
    abstract_mesh,
    batch_sharding,
    check_batch_size,
    make_mesh,
    num_batch_shards,
    sharding_rows,
)
from cod_jax.parallel.collectives import Traffic, traffic
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import compile_step, make_plan, step_flops

COLUMNS = ("parameters", "average", "optimizer", "frozen", "total")


@dataclasses.dataclass(frozen=True)
class Step:
    """Needs of one step.

    Attributes:
        temporary_bytes: Bytes of temporary arrays on each device, of the update that has most.
        traffic: What each device sends in the update that sends most, see `collectives.traffic`.
        flops: Operations of all devices together, see `plan.step_flops`; the mean over the updates that take turns.
    """

    temporary_bytes: int
    traffic: list[Traffic]
    flops: float

    @property
    def sent_bytes(self) -> int:
        """Bytes that each device sends."""
        return sum(one.sent_bytes for one in self.traffic)


def unfit_batch(config: TrainConfig, mesh: tuple[int, int, int]) -> str:
    """Return why the devices of a mesh cannot share a batch; "" if they can.

    Args:
        config: Settings of the run.
        mesh: Devices per mesh axis: data, fsdp and tensor.
    """
    batch = batch_sharding(abstract_mesh(MeshConfig(*mesh)), config.sharding.batch)
    try:
        parts = config.shared_by(num_batch_shards(batch)).accumulation_steps
        check_batch_size("batch_size / accumulation_steps", config.batch_size // parts, batch)
    except UserError as error:
        return str(error)
    return ""


def bytes_per_device(config: TrainConfig, mesh: tuple[int, int, int]) -> list[int]:
    """Return how many bytes a run holds on each device, from shapes and shardings; the devices need not exist.

    Args:
        config: Settings of the run.
        mesh: Devices per mesh axis: data, fsdp and tensor.

    Returns:
        Bytes of the parameters, their average, the optimizer, the frozen networks and all together, as in `COLUMNS`.

    Raises:
        UserError: The settings do not fit the mesh.
    """
    plan = make_plan(config, abstract_mesh(MeshConfig(*mesh)))

    def held(shapes: Any, shardings: Any) -> int:
        return sum(row.bytes_per_device for row in sharding_rows(shapes, shardings))

    items = ("params", "ema", "optimizer")
    parts = [held(getattr(plan.shapes, item), getattr(plan.shardings, item)) for item in items]
    frozen = held(plan.frozen_shapes, plan.frozen_shardings)
    return [*parts, frozen, held(plan.shapes, plan.shardings) + frozen]


def compiled(config: TrainConfig, mesh: tuple[int, int, int]) -> Step:
    """Compile the step for the devices of this process, and return what it takes.

    Args:
        config: Settings of the run.
        mesh: Devices per mesh axis: data, fsdp and tensor.

    Raises:
        UserError: The settings do not fit the mesh.
    """
    where = make_mesh(MeshConfig(*mesh), jax.devices()[: math.prod(mesh)])
    batch = batch_sharding(where, config.sharding.batch)
    config = config.shared_by(num_batch_shards(batch))
    plan = make_plan(config, where)
    check_batch_size("batch_size / accumulation_steps", config.batch_size // config.accumulation_steps, batch)
    steps: list[Any] = [compile_step(plan, config, update, batch) for update in plan.objective.updates]
    sent = [traffic(step.as_text()) for step in steps]
    flops, schedule = step_flops(plan, config), plan.objective.schedule
    return Step(
        max(step.memory_analysis().temp_size_in_bytes for step in steps),
        max(sent, key=lambda kinds: sum(one.sent_bytes for one in kinds)),
        sum(flops[index] for index in schedule) / len(schedule),
    )


def in_use() -> dict[str, float]:
    """Return the memory of the fullest device of this process, in bytes, now and at its highest; {} on CPUs.

    The keys are "memory/bytes_in_use" and "memory/peak_bytes_in_use".
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    names = ("bytes_in_use", "peak_bytes_in_use")
    return {f"memory/{name}": float(max(s[name] for s in stats)) for name in names if all(name in s for s in stats)}
