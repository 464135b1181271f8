"""The device mesh of a run: data parallelism, fully sharded data parallelism and tensor parallelism."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from cod_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each mesh axis; one of them may be -1, for all devices that are left.

    Attributes:
        data: Number of copies of the state. Each works on its share of the batch.
        fsdp: Number of devices that share one copy of the state and the batch (fully sharded data parallelism).
        tensor: Number of devices that split single layers and see the same rows of the batch.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = [getattr(self, axis) for axis in AXES]
        for axis, size in zip(AXES, sizes, strict=True):
            if size != -1 and size < 1:
                raise UserError(f"expected mesh.{axis} to be at least 1, or -1 for the remaining devices, got {size}")
        if sizes.count(-1) > 1:
            raise UserError(f"expected at most one mesh axis of -1, got {self._described()}")

    def sizes(self, num_devices: int) -> tuple[int, int, int]:
        """Return the sizes of the axes for a number of devices.

        Raises:
            UserError: The sizes do not fit the number of devices.
        """
        given = [getattr(self, axis) for axis in AXES]
        known = math.prod(size for size in given if size != -1)
        if -1 in given and num_devices % known == 0:
            given[given.index(-1)] = num_devices // known
        if math.prod(given) != num_devices:
            rule = f"must divide {num_devices}" if -1 in given else f"must be {num_devices}"
            raise UserError(
                f"the mesh {self._described()} does not fit {num_devices} devices; the product of its axes {rule}"
            )
        return given[0], given[1], given[2]

    def _described(self) -> str:
        return " x ".join(f"{axis} {getattr(self, axis)}" for axis in AXES)


def by_process(devices: Sequence[Any]) -> list[Any]:
    """Sort devices so that those of one process stand together.

    Their numbers follow their place in the network, where the devices of several processes may alternate.
    """
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Build the mesh over all devices of all processes, with the axes "data", "fsdp" and "tensor".

    Args:
        config: Sizes of the axes.
        devices: Devices to use, by default all of `jax.devices()`.

    Raises:
        UserError: The sizes do not fit the devices, or tensor parallelism would cross processes.
    """
    devices = by_process(jax.devices() if devices is None else devices)
    sizes = config.sizes(len(devices))
    # Plain order, not one tuned to the interconnect: the devices of a process stay together, so that every process
    # holds its own rows of the batch.
    grid = np.asarray(devices).reshape(sizes)
    for group in grid.reshape(-1, sizes[2]):
        if len({device.process_index for device in group}) > 1:
            local = len(devices) // len({device.process_index for device in devices})
            raise UserError(
                f"expected mesh.tensor to divide the {local} devices of a process, because processes read different "
                f"images, got {sizes[2]}"
            )
    return Mesh(grid, AXES)


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """Return a mesh to plan with, whose devices need not exist; all its sizes must be given."""
    return AbstractMesh((config.data, config.fsdp, config.tensor), AXES)
