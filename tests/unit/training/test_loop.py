"""The start of the training loop's state."""

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import build_model
from cod_jax.parallel import make_mesh
from cod_jax.training.config import TrainConfig
from cod_jax.training.frozen import placed
from cod_jax.training.initial import fresh_state
from cod_jax.training.loop import _open_data
from cod_jax.training.plan import Plan, make_plan
from cod_jax.training.state import TrainState
from cod_jax.training.teacher import load_teacher
from configs import base, tiny_one_step
from tests.model_fixtures import numpy_params
from tests.training_fixtures import small_settings, write_photographs


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


@pytest.mark.parametrize("fewer", [True, False])
def test_a_batch_that_is_larger_than_the_set_is_noted(tmp_path, caplog, fewer: bool):
    settings = small_settings()
    settings["data"] |= {"source": str(write_photographs(tmp_path / "photos")), "validation_modulus": 0}
    settings["batch_size"] = 64 if fewer else 2
    (tmp_path / "photos" / "unread.heic").touch()
    with contextlib.closing(_open_data(TrainConfig.from_dict(settings))[0]) as batches:
        assert 2 <= batches.num_images < 64
    assert ("so a batch holds files several times" in caplog.text) == fewer
    assert caplog.text.count("unread.heic") == 1  # the folder is searched once for both parts


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
