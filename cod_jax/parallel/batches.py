"""Batches that move from the host memory of each process to the mesh."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import NamedSharding

from cod_jax.errors import UserError


def check_batch_size(name: str, batch_size: int, sharding: NamedSharding) -> None:
    """Refuse a batch that cannot be spread evenly.

    Args:
        name: Name of the batch size, for the message.
        batch_size: Number of images in the whole batch.
        sharding: Sharding of the batch, see `batch_sharding`.

    Raises:
        UserError: The number of devices that share the batch does not divide its size, or the number of processes does
            not divide the number of these devices.
    """
    num_shards = num_batch_shards(sharding)
    if batch_size % num_shards:
        raise UserError(f"expected {name} to be a multiple of the {num_shards} devices that share it, got {batch_size}")
    if num_shards % jax.process_count():
        raise UserError(
            f"expected to split the batch over a multiple of {jax.process_count()} processes, which read different "
            f"images, got {num_shards} devices; change mesh.data or mesh.fsdp"
        )


def num_batch_shards(sharding: NamedSharding) -> int:
    """Return the number of pieces that the first dimension is cut into."""
    axes = sharding.spec[0] or ()
    return int(np.prod([sharding.mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes)]))


def global_batch(local: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Join the rows that each process has read into arrays over the whole mesh.

    Process p holds rows p b to (p + 1) b of the batch, b being its number of rows. No data moves between processes.

    Args:
        local: Rows of this process for every field, [b, ...].
        sharding: Sharding of the batch, see `batch_sharding`.
    """
    return {
        name: jax.make_array_from_process_local_data(sharding, rows, (len(rows) * jax.process_count(), *rows.shape[1:]))
        for name, rows in local.items()
    }
