"""Batches and results between the host memory of each process and the mesh."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import NamedSharding

from cod_jax.errors import UserError


def check_batch_size(name: str, batch_size: int, sharding: NamedSharding) -> None:
    """Refuse a batch that cannot be spread evenly.

    Args:
        name: Name of the batch size, for the message.
        batch_size: Images in the whole batch.
        sharding: Of the batch, see `batch_sharding`.

    Raises:
        UserError: The batch is not a multiple of the devices that share it, or of the processes.
    """
    num_shards = num_batch_shards(sharding)
    if batch_size % num_shards:
        raise UserError(f"{name} is {batch_size}; it must be a multiple of the {num_shards} devices that share it")
    if num_shards % jax.process_count():
        raise UserError(
            f"the batch is split over {num_shards} devices but there are {jax.process_count()} processes, which read "
            "different images; make mesh.data x mesh.fsdp a multiple of the processes"
        )


def num_batch_shards(sharding: NamedSharding) -> int:
    """Number of pieces that the first dimension is cut into."""
    axes = sharding.spec[0] or ()
    return int(np.prod([sharding.mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes)]))


def global_batch(local: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Join the rows that each process read into arrays over the whole mesh.

    Process p holds rows p b to (p + 1) b of the batch, b being its number of rows. No data moves between processes.

    Args:
        local: This process's rows of every field, [b, ...].
        sharding: Of the batch, see `batch_sharding`.
    """
    return {
        name: jax.make_array_from_process_local_data(sharding, rows, (len(rows) * jax.process_count(), *rows.shape[1:]))
        for name, rows in local.items()
    }
