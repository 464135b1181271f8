"""What a resumed run keeps: the stage that it began with, its seed, and its arrays."""

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cod_jax.errors import UserError
from cod_jax.training import resuming
from cod_jax.training.checkpoint import SHAPES, shapes_of
from cod_jax.training.config import TrainConfig
from cod_jax.training.resuming import as_begun, check_same_state
from cod_jax.training.run_data import open_data
from cod_jax.training.run_folder import DamagedCheckpointError
from cod_jax.training.state import TrainState
from tests.training_fixtures import small_settings, write_photographs

SETTINGS = small_settings()
CONFIG = TrainConfig.from_dict(SETTINGS)


def changed(**groups: dict[str, Any]) -> TrainConfig:
    return TrainConfig.from_dict({**SETTINGS, **{name: {**SETTINGS[name], **groups[name]} for name in groups}})


def state(num_moments: int) -> TrainState:
    moments = [jnp.zeros(2)] * num_moments
    return TrainState({}, {}, {"model": moments}, {}, jnp.int32(0), jnp.int32(0), {}, jnp.zeros(2))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Any] | None]:
    """Settings of checkpoints by step, None for a damaged one, in place of files."""
    stored: dict[int, dict[str, Any] | None] = {}

    def load_meta(_: str, step: int) -> dict[str, Any]:
        settings = stored[step]
        if settings is None:
            raise DamagedCheckpointError("damaged")
        return {"config": settings}

    monkeypatch.setattr(resuming, "steps_of", lambda _: sorted(stored))
    monkeypatch.setattr(resuming, "load_meta", load_meta)
    return stored


def test_a_run_goes_on_with_the_stage_that_it_began_with(stored):
    third = dataclasses.replace(CONFIG, stage=3)
    assert as_begun(third, "run") == third
    stored |= {10: {"stage": 2}, 20: {"stage": 2}, 30: None}
    assert as_begun(third, "run") == dataclasses.replace(CONFIG, stage=2)


def test_a_later_stage_of_an_earlier_version_goes_on_with_its_pictures_and_noise(stored, tmp_path):
    data = {**SETTINGS["data"], "source": str(write_photographs(tmp_path / "photos"))}
    third = TrainConfig.from_dict({**SETTINGS, "data": data, "seed": 5, "stage": 3})
    stored[10] = {"seed": 5}
    earlier = as_begun(third, "run")
    assert earlier.stage_seed == 5
    with contextlib.closing(open_data(earlier)[0]) as batches:
        state = {**batches.get_state(), "step": 10}
        assert state["seed"] == 5
        batches.set_state(state)
    with contextlib.closing(open_data(third)[0]) as batches, pytest.raises(UserError, match="seed was 5 and is"):
        batches.set_state(state)


def meta_of(num_moments: int) -> dict[str, Any]:
    return {"config": CONFIG.to_dict(), SHAPES: shapes_of(state(num_moments))}


def test_what_changed_is_named_where_the_arrays_of_the_optimizer_differ():
    config = changed(optimizer={"relative_clip": 2.0}, checkpoint={"every_steps": 7})
    expected = r"run holds a checkpoint that .* changed \(optimizer.relative_clip 0.0 -> 2.0\); use the old ones or ano"
    with pytest.raises(UserError, match=expected):
        check_same_state(config, "run", meta_of(1), jax.eval_shape(lambda: state(3)))


def test_settings_that_change_no_array_may_change():
    config = changed(optimizer={"learning_rate": 1e-5, "gradient_clip": 3.0}, objective={"reconstruction_weight": 2.0})
    check_same_state(config, "run", meta_of(1), jax.eval_shape(lambda: state(1)))


def test_another_seed_is_refused_by_its_name_in_every_stage():
    config = dataclasses.replace(CONFIG, seed=4)
    with pytest.raises(UserError, match=r"settings that changed \(seed 0 -> 4\); use the old ones"):
        check_same_state(config, "run", meta_of(1), jax.eval_shape(lambda: state(1)))
