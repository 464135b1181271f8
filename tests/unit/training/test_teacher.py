"""The teacher of a distillation: which models may be one."""

import jax
import numpy as np
import pytest

from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import build_model
from cod_jax.training import teacher
from cod_jax.training.objectives.distill import DistillConfig
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.teacher import load_teacher, load_teacher_config
from tests.model_fixtures import numpy_params, tiny_model_config


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
    with pytest.raises(ValueError, match=r"model must be a diffusion model, got a one-step codec, .*; give a pre-"):
        load_teacher_config(str(tmp_path / "model"))


def test_the_included_model_is_a_teacher_without_guidance():
    context = ObjectiveContext(tiny_model_config())
    with pytest.raises(ValueError, match=r"expected guidance_scale 1 of objective.teacher compact, .*, got 3; set"):
        DistillConfig(teacher="compact").build(context)
    assert load_teacher_config("compact").denoiser.kind == "compact"


def test_a_path_that_is_no_teacher_names_the_setting(tmp_path):
    with pytest.raises(
        ValueError, match=r"objective.teacher must name a pre-trained CoD or CoD-Lite on pixels, got nothing"
    ):
        load_teacher_config("")
    with pytest.raises(ValueError, match=r"objective.teacher .*nowhere must be a run folder or a"):
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
    with pytest.raises(ValueError, match="got a one-step codec"):
        load_teacher_config(str(tmp_path))
