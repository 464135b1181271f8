"""The teacher of a distillation: which models may be one, and what starts from it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import build_model
from cod_jax.parallel import make_mesh
from cod_jax.training import teacher
from cod_jax.training.config import TrainConfig
from cod_jax.training.frozen import _digest, check_same, digests, placed
from cod_jax.training.loop import _fresh_state
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from cod_jax.training.plan import Plan, make_plan
from cod_jax.training.state import TrainState
from cod_jax.training.teacher import load_teacher, load_teacher_config
from configs import base, tiny_one_step
from tests.model_fixtures import numpy_params, tiny_model_config
from tests.training_fixtures import small_settings


def write_model(path, facts):
    config = tiny_model_config()
    params = numpy_params(build_model(config).shapes)
    save_bundle(path, config, params, training=facts)
    return config, params


def test_a_pre_trained_model_may_be_a_teacher(tmp_path):
    for index, facts in enumerate(({}, {"config": {"objective": {"kind": "pretrain"}}}, {"class": "PixNerDiT"})):
        path = tmp_path / str(index)
        config, params = write_model(path, facts)
        assert load_teacher_config(str(path)) == config
        jax.tree.map(np.testing.assert_array_equal, load_teacher(str(path)), params)


@pytest.mark.parametrize(
    "facts",
    [{"config": {"objective": {"kind": kind}}} for kind in ("one_step", "distill")] + [{"class": "OneStepCoD"}],
)
def test_a_one_step_codec_is_no_teacher(tmp_path, facts):
    write_model(tmp_path / "model", facts)
    with pytest.raises(ValueError, match=r"must be a diffusion model, got the one-step codec .*; give a pre-trained"):
        load_teacher_config(str(tmp_path / "model"))


def test_a_path_that_is_no_teacher_names_the_setting(tmp_path):
    with pytest.raises(
        ValueError, match=r"objective.teacher must name a pre-trained CoD or CoD-Lite on pixels, got nothing"
    ):
        load_teacher_config("")
    with pytest.raises(ValueError, match=r"objective.teacher .*nowhere must be the work folder of a run or a"):
        load_teacher_config(str(tmp_path / "nowhere"))
    for stage in ("stage1", "stage2"):
        (tmp_path / stage / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"objective.teacher .* contains the stages stage1, stage2; name one of them"):
        load_teacher_config(str(tmp_path))


def test_a_run_of_a_one_step_codec_is_no_teacher(tmp_path, monkeypatch):
    config = tiny_model_config().to_dict()
    meta = {"config": {"model": config, "objective": {"kind": "pretrain"}}}
    monkeypatch.setattr(teacher, "latest_step", lambda _: 10)
    monkeypatch.setattr(teacher, "load_meta", lambda *_: meta)
    assert load_teacher_config(str(tmp_path)) == tiny_model_config()
    meta["config"]["objective"]["kind"] = "distill"
    with pytest.raises(ValueError, match="got the one-step codec"):
        load_teacher_config(str(tmp_path))


def test_other_weights_of_a_frozen_network_are_noticed(tmp_path):
    params = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.zeros(2, np.float32)}
    digest = _digest(params)
    assert digest == _digest({"b": params["b"], "a": dict(params["a"])})
    assert digest != _digest({**params, "b": np.array([0, 1e-9], np.float32)})
    assert digest != _digest({**params, "a": {"kernel": params["a"]["kernel"].T}})
    # The same numbers mean another thing in another network.
    assert _digest(params, {"prediction": "image"}) != _digest(params, {"prediction": "velocity"})
    check_same(tmp_path, {"frozen": {"teacher": digest}}, {"teacher": digest})
    with pytest.raises(ValueError, match="was trained with other weights of the frozen teacher than those given now"):
        check_same(tmp_path, {"frozen": {"teacher": digest}}, {"teacher": _digest({})})


def test_processes_that_were_given_different_weights_are_told(monkeypatch):
    objective = Pretrain(PretrainConfig(), ObjectiveContext(tiny_model_config()))
    objective.frozen = {"dinov2": objective.functional, "teacher": objective.functional}
    given = {"dinov2": {"b": np.zeros(2, np.float32)}, "teacher": {"b": np.ones(2, np.float32)}}
    other = {**given, "teacher": given["dinov2"]}
    of_other = np.stack([np.frombuffer(bytes.fromhex(text), np.uint8) for text in digests(objective, other).values()])
    own = digests(objective, given)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine]))
    assert digests(objective, given) == own
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.stack([mine, of_other]))
    with pytest.raises(ValueError, match="were given different weights of teacher; give all of them the same files"):
        digests(objective, given)


class TwoArrays(Plan):
    """The smallest plan there is; making a real one's state takes a minute."""

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
    state = _fresh_state(plan, jax.random.key(0), given)
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
    state = _fresh_state(plan, jax.random.key(0), given)
    jax.tree.map(np.testing.assert_array_equal, state.params["critic"], given["teacher"]["denoiser"])
