"""Device meshes, shardings from logical axis names, and batches spread over processes."""

from cod_jax.parallel.batches import check_batch_size, global_batch, num_batch_shards
from cod_jax.parallel.mesh import AXES, MeshConfig, abstract_mesh, make_mesh
from cod_jax.parallel.sharding import (
    LAYERS,
    Rules,
    ShardingRow,
    batch_sharding,
    gather_block,
    gathered,
    gathering_blocks,
    gathers_blocks,
    put,
    replicated,
    sharding_rows,
    spec,
    tree_shardings,
)

__all__ = [
    "AXES",
    "LAYERS",
    "MeshConfig",
    "Rules",
    "ShardingRow",
    "abstract_mesh",
    "batch_sharding",
    "check_batch_size",
    "gather_block",
    "gathered",
    "gathering_blocks",
    "gathers_blocks",
    "global_batch",
    "make_mesh",
    "num_batch_shards",
    "put",
    "replicated",
    "sharding_rows",
    "spec",
    "tree_shardings",
]
