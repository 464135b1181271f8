"""The one-step codec through the commands: both stages, stopped and resumed, exported, and judged."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cod_jax.bundle import load_bundle, save_bundle
from cod_jax.export import main as export
from cod_jax.models import ModelConfig, build_model, flatten_params
from cod_jax.models.lora import merge
from cod_jax.training.checkpoint import load_for_export
from tests.integration.states import final_state
from tests.model_fixtures import numpy_params
from tests.training_fixtures import CONFIG, run_trainer, small_arguments, small_settings, write_photographs

ONE_STEP = str(CONFIG).replace("tiny.py", "tiny_one_step.py")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A model folder as if it had been trained."""
    path = tmp_path_factory.mktemp("models") / "teacher"
    config = ModelConfig.from_dict(small_settings()["model"])
    save_bundle(path, config, numpy_params(build_model(config).shapes), training={})
    return path


def arguments(workdir: Path, photographs: Path, stage: str, start: Path, **fields) -> list[str]:
    fields = {"init_from": start, "validation__num_images": 3, **fields}
    settings = small_arguments(workdir, photographs, **fields)
    return [f"--config={ONE_STEP}:{stage}", *settings[1:]]


@pytest.mark.slow
def test_distillation_goes_on_where_it_stopped_bit_for_bit(photographs, teacher, tmp_path):
    fields = {
        "objective__teacher": teacher,
        "objective__critic_updates": 2,
        "objective__critic_optimizer__warmup_steps": 0,
        "checkpoint__every_steps": 4,
        "validation__every_steps": 4,
        "batch_size": 2,
    }

    def train(name: str, steps: int):
        done = run_trainer(arguments(tmp_path / name, photographs, "2", teacher, total_steps=steps, **fields))
        assert done.returncode == 0, done.stderr
        return done.stdout

    log = train("straight", 6)
    assert "step 3/6: student loss" in log
    assert "step 4/6: critic loss" in log
    assert "validation after step 4: PSNR" in log
    train("stopped", 4)
    assert "resumed after step 4 of 6" in train("stopped", 6)
    straight, stopped = (final_state(tmp_path / name, 6) for name in ("straight", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, stopped, straight)
    # Nothing ranks these checkpoints, so the newest is exported.
    assert load_for_export(tmp_path / "straight")[2]["step"] == 6


@pytest.mark.slow
def test_both_stages_run_one_after_the_other_and_end_as_a_model_of_one_step(photographs, teacher, tmp_path, capsys):
    fields = {"total_steps": 2, "batch_size": 2, "validation__num_images": 0}
    first = run_trainer(arguments(tmp_path / "first", photographs, "1", teacher, **fields))
    assert first.returncode == 0, first.stderr
    state = final_state(tmp_path / "first", 2)
    merged = merge(state["ema"]["model"], state["ema"]["lora"], 1.0)
    assert export(["--workdir", str(tmp_path / "first"), "--output", str(tmp_path / "first_model")]) == 0
    exported = flatten_params(load_bundle(tmp_path / "first_model").params)
    for name, value in flatten_params(merged).items():
        np.testing.assert_allclose(exported[name], value, rtol=1e-6, atol=1e-7, err_msg=name)

    workdir = tmp_path / "all"
    settings = arguments(workdir, photographs, "all", teacher, **fields)
    missing = run_trainer(settings)
    assert missing.returncode == 1
    assert "objective.teacher names no model" in missing.stderr

    second = arguments(tmp_path / "second", photographs, "2", tmp_path / "first", objective__teacher=teacher, **fields)
    done = run_trainer(second)
    assert done.returncode == 0, done.stderr
    assert "left out (not in this model): none" in done.stdout
    assert export(["--workdir", str(tmp_path / "second"), "--output", str(tmp_path / "model")]) == 0
    assert load_bundle(tmp_path / "model").decoding.num_steps == 1
