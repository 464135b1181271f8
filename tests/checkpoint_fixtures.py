"""Checkpoints of a state with a few numbers, whole and damaged."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.state import TrainState

OPTIMIZER = optax.adam(1e-3)
CONFIG = {"model": {"codec": {"pitch": 16}}, "seed": 0}


def make_state(seed: int = 0, width: int = 8) -> TrainState:
    generator = np.random.default_rng(seed)
    kernel = jnp.asarray(generator.normal(size=(4, width)), jnp.float32)
    params = {"model": {"layers": {0: {"kernel": kernel}, 1: {"kernel": kernel + 1}}}, "heads": {"k": kernel + 2}}
    return TrainState(
        params=params,
        ema=jax.tree.map(lambda x: x + 10, params),
        optimizer={"model": OPTIMIZER.init(params)},
        buffers={"codebook_usage": jnp.ones((3,))},
        step=jnp.int32(seed),
        skipped=jnp.int32(0),
        consecutive_skipped={"model": jnp.int32(0)},
        key=jax.random.key_data(jax.random.key(seed)),
    )


def save_all(workdir: Path | str, losses: dict[int, float | None], **options: int) -> CheckpointStore:
    store = CheckpointStore(workdir, keep_latest=options.get("keep_latest", 2), keep_best=options.get("keep_best", 1))
    for step, loss in losses.items():
        validation = None if loss is None else {"loss": loss}
        store.save(step, make_state(step), {"config": CONFIG, "data": {"step": step}}, validation)
    store.wait()
    return store


def truncate_numbers(folder: Path) -> None:
    for file in folder.glob("params/d/*"):
        file.write_bytes(file.read_bytes()[:-40])


def remove_numbers(folder: Path) -> None:
    for file in folder.glob("optimizer/d/*"):
        file.unlink()
