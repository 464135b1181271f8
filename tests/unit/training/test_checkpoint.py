import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.parallel import MeshConfig, make_mesh, replicated, tree_shardings
from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.initial import load_initial
from cod_jax.training.saved_models import Weights, load_for_export, load_meta
from cod_jax.training.state import TrainState

RULES = {"in": ("tensor", None), "out": ("fsdp", None)}
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


def shardings_of(state: TrainState, config: MeshConfig) -> TrainState:
    axes = jax.tree.map(lambda x: ("in", "out") if x.ndim == 2 else ("in",) * x.ndim, state)
    return tree_shardings(state, axes, RULES, make_mesh(config))


def save_all(workdir: Path, losses: dict[int, float | None], **options: int) -> CheckpointStore:
    store = CheckpointStore(workdir, **{"keep_latest": 2, "keep_best": 1, **options})
    for step, loss in losses.items():
        store.save(step, make_state(step), {"config": CONFIG, "data": {"step": step}}, loss)
    store.wait()
    return store


def steps_of(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def assert_equal(tree, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), tree, other)


def test_a_state_comes_back_bit_for_bit_on_any_mesh(tmp_path):
    state = make_state(3)
    placed = jax.device_put(state, shardings_of(state, MeshConfig(data=2, fsdp=2, tensor=2)))
    with_store = CheckpointStore(tmp_path, 1, 0)
    with_store.save(3, placed, {"config": CONFIG, "data": {"step": 3}}, None)
    with_store.close()
    store = CheckpointStore(tmp_path, 1, 0)
    assert store.latest_step() == 3
    assert store.meta(3)["data"] == {"step": 3}
    for config in (MeshConfig(data=8), MeshConfig(data=1, fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)):
        shardings = shardings_of(state, config)
        restored = store.restore(3, jax.eval_shape(lambda: state), shardings)
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        assert_equal(restored, state)
        assert all(jax.tree.leaves(jax.tree.map(lambda x, s: x.sharding == s, restored, shardings)))
    store.close()


def test_the_newest_and_the_best_are_kept(tmp_path):
    store = save_all(tmp_path, {1: 0.5, 2: 0.3, 3: None, 4: math.nan, 5: 0.9, 6: None})
    assert steps_of(tmp_path) == [2, 5, 6]
    store.close()


def test_the_best_is_remembered_by_the_next_process(tmp_path):
    save_all(tmp_path, {1: 0.3, 2: 0.5}).close()
    save_all(tmp_path, {3: 0.4, 4: None, 5: None}).close()
    assert steps_of(tmp_path) == [1, 4, 5]


def test_without_a_validation_only_the_newest_are_kept(tmp_path):
    save_all(tmp_path, {1: None, 2: None, 3: None, 4: None}).close()
    assert steps_of(tmp_path)[-2:] == [3, 4]


def test_a_step_is_saved_once(tmp_path):
    store = save_all(tmp_path, {1: None})
    store.save(1, make_state(1), {"config": CONFIG, "data": {"step": 1}}, None)
    store.close()
    assert steps_of(tmp_path) == [1]


def test_what_a_killed_process_left_half_written_is_ignored_and_removed(tmp_path):
    save_all(tmp_path, {1: None}).close()
    whole = tmp_path / "checkpoints" / "1"
    shutil.copytree(whole, whole.with_name("2.orbax-checkpoint-tmp"))
    store = CheckpointStore(tmp_path, 2, 0)
    assert store.latest_step() == 1
    store.save(2, make_state(2), {"config": CONFIG, "data": {"step": 2}}, None)
    store.close()
    assert steps_of(tmp_path) == [1, 2]


def test_a_checkpoint_of_another_state_is_refused_in_one_line(tmp_path):
    store = save_all(tmp_path, {1: None})
    other = jax.eval_shape(lambda: make_state(1, width=16))
    everywhere = jax.tree.map(lambda _: replicated(make_mesh(MeshConfig())), other)
    with pytest.raises(ValueError, match=r"this config: expected \[4, 16\] for ema/heads/k, got \[4, 8\], and"):
        store.restore(1, other, everywhere)
    store.close()


def test_export_reads_the_best_by_default_and_any_step_by_name(tmp_path):
    save_all(tmp_path, {1: 0.3, 2: 0.5, 3: None}).close()
    model, params, info = load_for_export(tmp_path)
    assert model == CONFIG["model"]
    assert info == {"step": 1, "weights": "ema", "validation_loss": 0.3, "config": CONFIG}
    assert params.keys() == {"layers/0/kernel", "layers/1/kernel"}
    np.testing.assert_array_equal(params["layers/1/kernel"], make_state(1).ema["model"]["layers"][1]["kernel"])
    _, params, info = load_for_export(tmp_path, "raw", step=3)
    assert (info["step"], info["validation_loss"]) == (3, None)
    np.testing.assert_array_equal(params["layers/0/kernel"], make_state(3).params["model"]["layers"][0]["kernel"])


def test_export_takes_the_newest_where_nothing_was_validated(tmp_path):
    save_all(tmp_path, {1: None, 2: None}).close()
    assert load_for_export(tmp_path)[2]["step"] == 2


def test_export_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoints; give the --workdir of a training run"):
        load_for_export(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no finished checkpoint"):
        load_for_export(tmp_path)
    save_all(tmp_path, {7: None}).close()
    with pytest.raises(FileNotFoundError, match="has no checkpoint of step 8; it has 7"):
        load_for_export(tmp_path, step=8)


def test_a_later_stage_takes_raw_weights_with_their_average_or_the_average_for_both(tmp_path):
    save_all(tmp_path, {4: None}).close()
    state = make_state(4)
    raw, average = np.asarray(state.params["heads"]["k"]), np.asarray(state.ema["heads"]["k"])
    starts: dict[Weights, np.ndarray] = {"raw": raw, "ema": average}
    for weights, start in starts.items():
        initial = load_initial(tmp_path, weights, state.params, ())
        np.testing.assert_array_equal(initial.params["heads/k"], start)
        np.testing.assert_array_equal(initial.ema["heads/k"], average)
        assert not initial.grown + initial.fresh + initial.left_out
    assert load_meta(tmp_path, 4)["config"] == CONFIG
