"""One device against eight, in every way of sharing the work, and a state moved from one mesh to another."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from cod_jax.parallel import (
    MeshConfig,
    batch_sharding,
    gathered,
    gathering_blocks,
    global_batch,
    make_mesh,
    replicated,
    tree_shardings,
)
from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import build_objective
from cod_jax.training.state import init_state, state_axes
from cod_jax.training.step import make_update
from tests.checkpoint_fixtures import CONFIG
from tests.model_fixtures import numpy_params
from tests.training_fixtures import small_compact_settings, small_settings

MESHES = {"1x1x1": (1, 1, 1), "8x1x1": (8, 1, 1), "1x8x1": (1, 8, 1), "2x2x2": (2, 2, 2)}
# Sums over devices add in another order than on one; float32 has about seven digits.
TOLERANCE = 1e-5


# Settings and the terms of the loss.
KINDS = {
    "compact": (small_compact_settings, ("loss/squared_error", "loss/rate")),
    "cod": (small_settings, ("loss/flow", "loss/reconstruction", "loss/commitment", "codebook/perplexity")),
}


class Runner:
    """The compiled step of a kind of model on each mesh, from equal parameters."""

    def __init__(self, kind: str):
        settings, self.terms = KINDS[kind]
        self.config = TrainConfig.from_dict(settings())
        self.objective = build_objective(self.config)
        self.optimizer = self.config.optimizer.build()
        self.shapes = jax.eval_shape(lambda: init_state(self.objective, {"model": self.optimizer}, jax.random.key(0)))
        params = numpy_params(self.shapes.params)
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.shapes)
        self.start = dataclasses.replace(zeros, params=params, ema=params)
        self.images = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)
        self._steps = {}

    def shardings(self, name: str):
        devices = jax.devices()[: int(np.prod(MESHES[name]))]
        mesh = make_mesh(MeshConfig(*MESHES[name]), devices)
        axes = state_axes(self.objective, {"model": self.optimizer})
        state = tree_shardings(self.shapes, axes, self.config.sharding.rules, mesh)
        return state, batch_sharding(mesh, self.config.sharding.batch), replicated(mesh)

    def step(self, name: str, state):
        """One update; the metrics come back as plain numbers."""
        shardings, batch, everywhere = self.shardings(name)
        if name not in self._steps:
            schedule = self.config.optimizer.build_schedule(self.config.total_steps)
            update = make_update(
                self.objective,
                self.objective.updates[0],
                self.optimizer,
                schedule,
                self.config.ema,
                gather=lambda params, frozen: (gathered(params, shardings.params, self.objective.axes), frozen),
            )
            self._steps[name] = jax.jit(
                gathering_blocks(self.config.sharding.rules, batch.mesh)(update),
                donate_argnums=0,
                in_shardings=(shardings, {}, {"image": batch}),
                out_shardings=(shardings, everywhere),
                compiler_options={"xla_backend_optimization_level": 0},
            )
        old = jax.device_put(state, shardings) if isinstance(state.step, np.ndarray) else state
        new, metrics = self._steps[name](old, {}, global_batch({"image": self.images}, batch))
        return new, {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module", params=["compact", pytest.param("cod", marks=pytest.mark.slow)])
def runner(request) -> Runner:
    return Runner(request.param)


@pytest.fixture(scope="module")
def alone(runner):
    """State and metrics of the first step on one device."""
    state, metrics = runner.step("1x1x1", runner.start)
    return jax.device_get(state), metrics


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("8x1x1", marks=pytest.mark.slow),
        pytest.param("1x8x1", marks=pytest.mark.soak),
        pytest.param("2x2x2", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_agree_with_one(runner, alone, name):
    alone_state, alone = alone
    state, metrics = runner.step(name, runner.start)
    assert metrics["skipped"] == 0
    for term in ("loss", "gradient_norm", *runner.terms):
        assert metrics[term] == pytest.approx(alone[term], rel=TOLERANCE), term
    # Adam turns gradients near zero into steps of either sign, so its first moments are compared, not the parameters.
    moments, expected = (optax.tree.get(s.optimizer, "mu") for s in (jax.device_get(state), alone_state))
    distance = optax.tree.norm(jax.tree.map(np.subtract, moments, expected))
    assert distance < 1e-4 * optax.tree.norm(expected)


def test_the_state_is_split_over_the_devices(runner):
    shardings, _, _ = runner.shardings("2x2x2")
    params = zip(jax.tree.leaves(shardings.params), jax.tree.leaves(runner.shapes.params), strict=True)
    parts = [np.prod(leaf.shape) // np.prod(sharding.shard_shape(leaf.shape)) for sharding, leaf in params]
    assert max(parts) == 4


@pytest.mark.slow
def test_a_step_takes_over_the_memory_of_the_old_state(runner):
    first, _ = runner.step("2x2x2", runner.start)
    runner.step("2x2x2", first)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_of_another_mesh(runner, tmp_path):
    first, _ = runner.step("2x2x2", runner.start)
    store = CheckpointStore(tmp_path, 1, 0)
    store.save(1, first, {"config": CONFIG, "data": {}}, None)
    store.wait()
    saved = jax.device_get(first)
    shardings, _, _ = runner.shardings("8x1x1")
    restored = store.restore(1, runner.shapes, shardings)
    store.close()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), saved)
    _, here = runner.step("8x1x1", restored)
    _, there = runner.step("2x2x2", first)
    assert here["loss"] == pytest.approx(there["loss"], rel=TOLERANCE)
    assert here["gradient_norm"] == pytest.approx(there["gradient_norm"], rel=TOLERANCE)
