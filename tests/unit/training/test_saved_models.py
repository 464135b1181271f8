"""Models read from a run, and the check of its checkpoints."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.initial import load_initial
from cod_jax.training.run_folder import DamagedCheckpointError, checkpoint_directory
from cod_jax.training.saved_models import (
    Weights,
    best_by,
    check_checkpoint,
    check_whole,
    load_for_export,
    load_meta,
)
from tests.checkpoint_fixtures import CONFIG, make_state, remove_numbers, save_all, truncate_numbers


def test_export_reads_the_best_by_default_and_any_step_by_name(tmp_path):
    save_all(tmp_path, {1: 0.3, 2: 0.5, 3: None}).close()
    model, params, info = load_for_export(tmp_path)
    assert model == CONFIG["model"]
    assert info == {"step": 1, "weights": "ema", "validation_loss": 0.3, "validation": {}, "config": CONFIG}
    assert params.keys() == {"layers/0/kernel", "layers/1/kernel"}
    np.testing.assert_array_equal(params["layers/1/kernel"], make_state(1).ema["model"]["layers"][1]["kernel"])
    _, params, info = load_for_export(tmp_path, "raw", step=3)
    assert (info["step"], info["validation_loss"]) == (3, None)
    np.testing.assert_array_equal(params["layers/0/kernel"], make_state(3).params["model"]["layers"][0]["kernel"])


def test_export_takes_the_best_by_the_number_that_the_newest_settings_name(tmp_path):
    store = CheckpointStore(tmp_path, 3, 0, best_by="psnr_one_step")
    for step, (loss, psnr) in enumerate(((0.5, 25.0), (0.4, 26.0), (0.3, 24.0)), 1):
        meta = {"config": {**CONFIG, "checkpoint": {"best_by": "psnr_one_step"}}, "data": {}}
        store.save(step, make_state(step), meta, {"loss": loss, "psnr_one_step": psnr})
    store.close()
    assert best_by(tmp_path) == "psnr_one_step"
    info = load_for_export(tmp_path)[2]
    assert (info["step"], info["validation_loss"]) == (2, 0.4)
    # Settings that cannot be read are passed over.
    (tmp_path / "checkpoints" / "3" / "meta" / "metadata").write_text("{}")
    assert best_by(tmp_path) == "psnr_one_step"
    assert load_for_export(tmp_path)[2]["step"] == 2


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


def test_the_error_about_a_damaged_checkpoint_says_which_can_be_read(tmp_path):
    save_all(tmp_path, {1: 0.5, 2: 0.3, 3: 0.4, 4: 0.2}, keep_latest=4).close()
    truncate_numbers(tmp_path / "checkpoints" / "1")
    for file in (tmp_path / "checkpoints" / "4").glob("ema/d/*"):
        file.unlink()
    with pytest.raises(
        ValueError,
        match=r"step 4 in .* is damaged \(.*\); those of 2, 3 can be read: name one with --step, or remove",
    ):
        load_for_export(tmp_path)
    assert load_for_export(tmp_path, step=3)[2]["step"] == 3
    with pytest.raises(ValueError, match=r"those of 2, 3 can be read"):
        load_initial(tmp_path, "raw", make_state(4).params, ())


def test_a_check_finds_what_cannot_be_read_and_what_is_not_finite(tmp_path):
    save_all(tmp_path, {1: None, 2: None}).close()
    assert check_checkpoint(tmp_path, 1) == []
    remove_numbers(tmp_path / "checkpoints" / "1")
    with pytest.raises(ValueError, match=r"the checkpoint of step 1 in .* is damaged"):
        check_checkpoint(tmp_path, 1)


def test_numbers_that_are_not_finite_are_named(tmp_path):
    state = make_state(1)
    state.ema["heads"]["k"] = state.ema["heads"]["k"].at[0, 0].set(np.nan)
    store = save_all(tmp_path, {})
    store.save(1, state, {"config": CONFIG, "data": {}}, None)
    store.close()
    assert check_checkpoint(tmp_path, 1) == ["ema/heads/k"]


def test_a_checkpoint_that_lacks_a_part_is_damaged(tmp_path: Path):
    save_all(tmp_path, {7: None}).close()
    folder = Path(checkpoint_directory(tmp_path)) / "7"
    check_whole(tmp_path, 7)
    truncate_numbers(folder)
    with pytest.raises(DamagedCheckpointError, match=r"the checkpoint of step 7 in .* is damaged"):
        check_whole(tmp_path, 7)
    shutil.rmtree(folder / "params")
    with pytest.raises(DamagedCheckpointError, match=r"the checkpoint of step 7 in .* lacks params"):
        check_whole(tmp_path, 7)
