"""Reads what a run has saved."""

from pathlib import Path

import jax

from cod_jax.parallel import make_mesh, replicated
from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import make_plan
from cod_jax.training.state import TrainState


def final_state(workdir: Path, step: int) -> TrainState:
    """The whole training state of a checkpoint."""
    store = CheckpointStore(workdir, 2, 1)
    config = TrainConfig.from_dict(store.meta(step)["config"])
    mesh = make_mesh(config.mesh)
    plan = make_plan(config, mesh)
    state = store.restore(step, plan.shapes, jax.tree.map(lambda _: replicated(mesh), plan.shapes))
    store.close()
    return jax.device_get(state)
