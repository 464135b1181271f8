import math
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from cod_jax.errors import WorkError
from cod_jax.parallel import MeshConfig, make_mesh, replicated, tree_shardings
from cod_jax.training import checkpoint
from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.run_folder import latest_step, naming_damage
from cod_jax.training.saved_models import load_meta
from cod_jax.training.state import TrainState
from tests.checkpoint_fixtures import CONFIG, make_state, remove_numbers, save_all, truncate_numbers

RULES = {"in": ("tensor", None), "out": ("fsdp", None)}


def shardings_of(state: TrainState, mesh: MeshConfig | Mesh) -> TrainState:
    axes = jax.tree.map(lambda x: ("in", "out") if x.ndim == 2 else ("in",) * x.ndim, state)
    return tree_shardings(state, axes, RULES, mesh if isinstance(mesh, Mesh) else make_mesh(mesh))


def steps_of(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


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


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_a_state_comes_back_under_a_mesh_that_is_set(tmp_path, num_devices: int, kind: AxisType):
    state = make_state(3)
    split = jax.device_put(state, shardings_of(state, MeshConfig(data=2, fsdp=2, tensor=2)))
    plain = make_mesh(MeshConfig(data=1, fsdp=num_devices), jax.devices()[:num_devices])
    mesh = Mesh(plain.devices, plain.axis_names, axis_types=(kind,) * 3)
    shardings = shardings_of(state, mesh)
    with jax.set_mesh(mesh):
        for step, saved in ((3, split), (4, jax.device_put(state, shardings))):
            store = CheckpointStore(tmp_path, 2, 0)
            store.save(step, saved, {"config": CONFIG, "data": {}}, None)
            store.close()
            store = CheckpointStore(tmp_path, 2, 0)
            restored = store.restore(step, jax.eval_shape(lambda: state), shardings)
            assert_equal(restored, state)
            assert {leaf.sharding.mesh.axis_types for leaf in jax.tree.leaves(restored)} == {mesh.axis_types}
            store.close()


def test_the_newest_and_the_best_are_kept(tmp_path):
    store = save_all(tmp_path, {1: 0.5, 2: 0.3, 3: None, 4: math.nan, 5: 0.9, 6: None})
    assert steps_of(tmp_path) == [2, 5, 6]
    store.close()


def test_the_best_is_remembered_by_the_next_process(tmp_path):
    save_all(tmp_path, {1: 0.3, 2: 0.5}).close()
    save_all(tmp_path, {3: 0.4, 4: None, 5: None}).close()
    assert steps_of(tmp_path) == [1, 4, 5]


def test_the_best_may_be_that_of_another_number(tmp_path):
    store = CheckpointStore(tmp_path, 1, 1, best_by="quality_2/psnr_one_step")
    for step, psnr in enumerate((21.0, 25.0, 23.0, math.nan), 1):
        numbers = {"loss": 1.0 / step, "quality_2/psnr_one_step": psnr}
        store.save(step, make_state(step), {"config": CONFIG, "data": {"step": step}}, numbers)
    store.close()
    assert steps_of(tmp_path) == [2, 4]
    # Ranked by the loss from now on, the numbers of earlier checkpoints still count.
    save_all(tmp_path, {5: 0.3}, keep_latest=1).close()
    assert steps_of(tmp_path) == [4, 5]


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


@pytest.mark.parametrize("name", ["5", "5.damaged", "5.orbax-checkpoint-tmp"])
def test_a_checkpoint_is_known_by_its_number(tmp_path, name: str):
    save_all(tmp_path, {1: None}).close()
    (tmp_path / "checkpoints" / name).mkdir()
    assert latest_step(tmp_path) == (5 if name == "5" else 1)


def restored(workdir: Path, *, fall_back: bool = True) -> tuple[int, TrainState] | None:
    store = CheckpointStore(workdir, 2, 1, fall_back=fall_back)
    try:
        state = make_state(3)
        everywhere = shardings_of(state, MeshConfig())
        return store.restore_newest(jax.eval_shape(lambda: state), everywhere, lambda meta: None)
    finally:
        store.close()


def replace_metadata(folder: Path) -> None:
    (folder / "meta" / "metadata").write_text('{"config": {"model": 1}}')


def replace_loss(folder: Path) -> None:
    (folder / "metrics" / "metrics").write_text("[]")


DAMAGES = [
    truncate_numbers,
    remove_numbers,
    replace_metadata,
    replace_loss,
    lambda folder: shutil.rmtree(folder / "ema"),
    lambda folder: shutil.rmtree(folder / "meta"),
    lambda folder: (folder / "small" / "manifest.ocdbt").write_bytes(b"{}"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_from_the_newest_checkpoint_that_can_be_read(tmp_path, caplog, damage: Callable[[Path], object]):
    save_all(tmp_path, {1: 0.5, 2: 0.3, 3: 0.4}, keep_latest=3).close()
    damage(tmp_path / "checkpoints" / "3")
    found = restored(tmp_path)
    assert found is not None
    step, state = found
    assert step == 2
    assert_equal(state, make_state(2))
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("cod_jax")]
    assert message.startswith(f"the checkpoint of step 3 in {tmp_path / 'checkpoints'} is damaged (")
    assert message.endswith("; its folder is now 3.damaged")
    assert "\n" not in message
    # The step can be saved again, and the folder that was set aside is nobody's checkpoint.
    save_all(tmp_path, {3: 0.2}, keep_latest=3).close()
    assert steps_of(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("damage", [truncate_numbers, replace_loss])
def test_a_run_may_refuse_to_go_back(tmp_path, damage: Callable[[Path], object]):
    save_all(tmp_path, {1: None, 2: None}).close()
    damage(tmp_path / "checkpoints" / "2")
    with pytest.raises(ValueError, match=r"step 2 in .* is damaged .*; allow older ones with --config.checkpoint.fall"):
        restored(tmp_path, fall_back=False)
    assert steps_of(tmp_path) == [1, 2]


@pytest.mark.parametrize("damage", [truncate_numbers, replace_loss])
def test_nothing_is_renamed_where_no_checkpoint_can_be_read(tmp_path, damage: Callable[[Path], object]):
    save_all(tmp_path, {1: None, 2: None}).close()
    for step in (1, 2):
        damage(tmp_path / "checkpoints" / str(step))
    with pytest.raises(ValueError, match=r"step 2 in .* is damaged .*, and no other can be read; use another"):
        restored(tmp_path)
    assert steps_of(tmp_path) == [1, 2]


def test_a_bug_or_too_little_memory_is_not_taken_for_damage(tmp_path):
    save_all(tmp_path, {1: None}).close()
    with pytest.raises(MemoryError), naming_damage(tmp_path / "checkpoints", 1):
        raise MemoryError
    with pytest.raises(FileNotFoundError, match="2 does not exist; a run may have removed it meanwhile"):
        load_meta(tmp_path, 2)


def test_a_save_without_space_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    store = save_all(tmp_path, {1: None})
    monkeypatch.setattr(checkpoint, "free_bytes", lambda folder: 1000)
    with pytest.raises(
        WorkError,
        match=r"the checkpoint of step 2 needs 0\.\d MB in .*, and 0\.0 MB are free; make room, then the same command "
        "resumes after step 1",
    ):
        store.save(2, make_state(2), {"config": CONFIG, "data": {}}, None)
    monkeypatch.setattr(checkpoint, "free_bytes", lambda folder: 100_000)
    with pytest.raises(WorkError, match=r"needs 0\.2 MB in .*, and 0\.1 MB are free"):
        store.save(2, make_state(2, width=400), {"config": CONFIG, "data": {}}, None)
    store.close()
    assert steps_of(tmp_path) == [1]


def check_until(store: CheckpointStore, deadline: float) -> None:
    while time.monotonic() < deadline:
        store.check()
        time.sleep(0.01)


def test_a_save_that_fails_is_noticed_at_once_in_one_line_and_leaves_nothing(tmp_path, capfd):
    store = save_all(tmp_path, {1: None})
    state = make_state(2, width=50_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        store.save(2, state, {"config": CONFIG, "data": {}}, None)
        deadline = time.monotonic() + 60
        with pytest.raises(WorkError) as error:
            check_until(store, deadline)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(error.value).startswith(f"the checkpoint of step 2 cannot be saved in {tmp_path / 'checkpoints'} (File ")
    assert str(error.value).endswith(" MB are free); the same command resumes after step 1")
    store.close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    assert "Event loop is closed" not in capfd.readouterr().err


def test_checkpoints_that_proved_useless_are_set_aside(tmp_path):
    store = save_all(tmp_path, {1: None, 2: None, 3: None}, keep_latest=3)
    assert store.drop_after(2) == "the same command resumes after step 2 (set aside: 3.unusable)"
    assert store.drop_after(2) == "the same command resumes after step 2"
    store.close()
    assert latest_step(tmp_path) == 2


def test_the_checkpoint_that_a_run_resumed_stays_and_is_named_if_it_may_be_useless(tmp_path):
    store = save_all(tmp_path, {1: None, 2: None, 3: None}, keep_latest=3)
    suspect = tmp_path / "checkpoints" / "2"
    assert store.drop_after(1, resumed=2) == (
        "the same command resumes after step 2 (set aside: 3.unusable); "
        f"if it fails there again, remove {suspect} first"
    )
    assert (
        store.drop_after(-1, resumed=0)
        == "the same command starts again, because nothing is saved yet (set aside: 1.unusable, 2.unusable)"
    )
    store.close()
