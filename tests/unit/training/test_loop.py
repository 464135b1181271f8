"""The training loop: its start, and what ends it."""

import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.errors import UserError, WorkError
from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import build_model
from cod_jax.parallel import last_words, make_mesh
from cod_jax.training import loop
from cod_jax.training.config import TrainConfig
from cod_jax.training.frozen import placed
from cod_jax.training.initial import fresh_state
from cod_jax.training.out_of_memory import naming_memory
from cod_jax.training.plan import Plan, make_plan
from cod_jax.training.run_folder import steps_of
from cod_jax.training.state import TrainState
from cod_jax.training.teacher import load_teacher
from configs import base, tiny_one_step
from tests.model_fixtures import numpy_params
from tests.training_fixtures import one_device, run_trainer, small_arguments, small_settings, write_photographs


def test_opening_the_data_may_take_longer_than_a_step(tmp_path, monkeypatch):
    settings = small_settings()
    settings["limits"]["step_seconds"] = 0.1
    left = []
    monkeypatch.setattr(last_words, "leave", left.append)

    def copying(config: TrainConfig):
        time.sleep(0.5)
        raise UserError("no pictures")

    monkeypatch.setattr(loop, "open_data", copying)
    with pytest.raises(UserError, match="no pictures"):
        loop.train(TrainConfig.from_dict(settings), tmp_path)
    assert left == []


def test_memory_that_is_too_small_for_a_run_is_a_line_with_advice(tmp_path, monkeypatch):
    def fail(config: TrainConfig):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nMore\nlines")

    monkeypatch.setattr(loop, "open_data", fail)
    with pytest.raises(WorkError, match=r"^out of memory while starting \(RESOURCE_EXHAUSTED: .*cod memory") as caught:
        loop.train(TrainConfig.from_dict(small_settings()), tmp_path)
    for advice in ("accumulation_steps", "images_per_device", "compute.remat=full", "mesh.fsdp"):
        assert f"--config.{advice}" in str(caught.value)
    assert isinstance(caught.value.__cause__, jax.errors.JaxRuntimeError)


def test_the_innermost_block_names_what_was_done_and_other_errors_stay():
    innermost = pytest.raises(WorkError, match=r"^out of memory while compiling")
    with innermost, naming_memory("starting"), naming_memory("compiling"):
        raise MemoryError
    for error in (UserError("RESOURCE_EXHAUSTED"), ValueError("a bug")):
        with pytest.raises(type(error), match=f"^{error}$"), naming_memory("starting"):
            raise error


# A metric with a bug, of a user's own module.
FAILING = """
from cod_jax.evaluation.metric_table import Metric
class Failing(Metric):
    name, higher_is_better = "failing", None
    def measure(self, original, decoded, num_bytes):
        raise ZeroDivisionError("this metric fails")
"""


class TwoArrays(Plan):
    """A minimal plan, because making the state of a real one takes a minute."""

    def init(self, key):
        params = {"model": jnp.ones(2), "critic": jnp.zeros(3)}
        return TrainState(params, {}, {}, {}, jnp.int32(0), jnp.int32(0), {}, jax.random.key_data(key))


def test_what_starts_from_a_frozen_network_starts_as_it_was_given():
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    given = {"teacher": {"denoiser": np.full(3, 1 + 2**-20, np.float32)}}
    plan = object.__new__(TwoArrays)
    shardings = jax.tree.map(lambda _: where, jax.eval_shape(plan.init, jax.random.key(0)))
    object.__setattr__(plan, "shardings", shardings)
    parts_from = SimpleNamespace(parts_from=lambda frozen: {"critic": frozen["teacher"]["denoiser"]})
    object.__setattr__(plan, "objective", parts_from)
    state = fresh_state(plan, jax.random.key(0), given)
    np.testing.assert_array_equal(state.params["critic"], given["teacher"]["denoiser"])
    np.testing.assert_array_equal(state.params["model"], 1)


@pytest.mark.slow
def test_the_critic_starts_as_the_teacher_was_given_and_not_as_it_is_rounded(tmp_path):
    path = str(tmp_path / "teacher")
    settings = tiny_one_step.get_config("2")
    base.apply(settings, {"objective.teacher": path, "data.source": "photos", "frozen.dtype": "bfloat16"})
    settings.model = small_settings()["model"]
    config = TrainConfig.from_dict(settings.to_dict())
    params = numpy_params(build_model(config.model).shapes)
    save_bundle(path, config.model, params, training={})
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    plan = make_plan(config, mesh)
    given = {"teacher": load_teacher(path)}
    rounded = placed(plan, given)
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded)} == {jnp.dtype("bfloat16")}
    state = fresh_state(plan, jax.random.key(0), given)
    jax.tree.map(np.testing.assert_array_equal, state.params["critic"], given["teacher"]["denoiser"])


@pytest.mark.slow
def test_a_run_whose_validation_fails_keeps_its_steps(tmp_path):
    (tmp_path / "failing_metric.py").write_text(FAILING)
    changes = {
        "total_steps": 4,
        "checkpoint__every_steps": 1000,
        "validation__every_steps": 2,
        "validation__metrics": '("failing_metric:Failing",)',
    }
    photographs = write_photographs(tmp_path / "photographs")
    environment = {**one_device(), "PYTHONPATH": str(tmp_path)}
    done = run_trainer(small_arguments(tmp_path / "run", photographs, **changes), env=environment)
    assert done.returncode == 1
    assert "the validation failed (this metric fails); the steps before it are saved" in done.stdout
    assert "ZeroDivisionError: this metric fails" in done.stderr
    assert steps_of(tmp_path / "run") == [2]
    # Not the last ones, because a run of all steps counts as done.
    done = run_trainer(small_arguments(tmp_path / "run", photographs, **changes), env=environment)
    assert done.returncode == 1
    assert steps_of(tmp_path / "run") == [2]
