"""The trainer as a user runs it: stopped, killed, resumed, and told nonsense."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cod_jax.commands.main import main
from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import ModelConfig, build_model, unflatten_params
from cod_jax.training.config import TrainConfig
from cod_jax.training.results import read_results
from cod_jax.training.run_folder import latest_step
from cod_jax.training.saved_models import load_for_export, load_meta
from demo.photographs import write_photographs as write_demo_photographs
from tests.integration.states import final_state
from tests.training_fixtures import (
    CONFIG,
    REPOSITORY,
    one_device,
    run_trainer,
    small_arguments,
    small_settings,
    write_photographs,
)

STEPS = {"total_steps": 20, "checkpoint__every_steps": 10, "validation__every_steps": 10}

# Dies like a machine without power: after the checkpoint of step 10 is written, while step 15 is under way.
KILLED_TRAINER = """
import os, signal, sys, time
from pathlib import Path
from cod_jax.input.pipeline import TrainBatches

workdir, following = Path(sys.argv[1]), TrainBatches.__next__

def dying(self):
    if self.get_state()["step"] == 15:
        while not (workdir / "checkpoints" / "10").is_dir():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    return following(self)

TrainBatches.__next__ = dying
from cod_jax.commands.main import main
sys.exit(main(sys.argv[2:], command="train"))
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = write_photographs(tmp_path_factory.mktemp("data") / "photographs")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory, photographs) -> Path:
    """The run folder of 20 steps in one go."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    done = run_trainer(small_arguments(workdir, photographs, **STEPS))
    assert done.returncode == 0, done.stderr
    assert "saved step 20" in done.stdout
    return workdir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, photographs) -> Path:
    """The run folder of five steps, two validations and a SIGTERM."""
    workdir = tmp_path_factory.mktemp("runs") / "stopped"
    fields = {"total_steps": 100_000, "checkpoint__every_steps": 100_000, "validation__every_steps": 2}
    command = [sys.executable, "-m", "cod_jax.train", *small_arguments(workdir, photographs, **fields)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=REPOSITORY, env=one_device(), **pipes) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if " step 5/100000" in line:
                process.send_signal(signal.SIGTERM)
        text = "".join(lines)
        assert process.wait(timeout=60) == 0, text
    return workdir


def events(workdir: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def scalars(workdir: Path, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events(workdir).Scalars(tag)}


@pytest.mark.slow
def test_a_killed_run_repeats_the_uninterrupted_one_bit_for_bit(straight, photographs, tmp_path):
    workdir = tmp_path / "killed"
    arguments = small_arguments(workdir, photographs, **STEPS)
    command = [sys.executable, "-c", KILLED_TRAINER, str(workdir), *arguments]
    killed = subprocess.run(command, cwd=REPOSITORY, env=one_device(), capture_output=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (workdir / "checkpoints" / "20").exists()
    resumed = run_trainer(arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step 10 of 20" in resumed.stdout
    expected, found = final_state(straight, 20), final_state(workdir, 20)
    assert load_meta(workdir, 20)["data"] == load_meta(straight, 20)["data"]
    assert int(found.step) == 20
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    for tag in ("loss", "validation/loss"):
        assert scalars(workdir, tag) == scalars(straight, tag)


def test_a_run_leaves_what_people_look_at(stopped):
    log = (stopped / "train.log").read_text()
    for text in (
        "devices: 1 x cpu, processes: 1, mesh: data 1 x fsdp 1 x tensor 1",
        "MiB per device; listed in",
        "image left out: broken.jpg",
        "step 5/100000: loss ",
        "validation after step 4: loss ",
    ):
        assert text in log
    assert "model/codec/bottleneck/codebook" in (stopped / "parameters.txt").read_text()
    step = latest_step(stopped)
    assert step is not None
    assert sorted(scalars(stopped, "loss")) == list(range(1, step + 1))
    tags = set(events(stopped).Tags()["scalars"])
    assert tags >= {
        *("loss/flow", "loss/reconstruction", "loss/commitment", "learning_rate", "gradient_norm", "skipped"),
        *("codebook/usage", "codebook/perplexity", "data/images_left_out"),
        *("speed/images_per_second", "speed/step_seconds", "speed/data_wait_share"),
        *("validation/loss", "validation/psnr_one_step", "validation/psnr_sampled"),
        *("validation/codebook/perplexity", "validation/nominal_bits_per_pixel"),
    }
    assert "speed/model_flops_utilisation" not in tags  # the peak rate of a CPU is not known
    measured = [step for step, _ in sorted(scalars(stopped, "validation/loss").items())]
    assert measured[:2] == [2, 4]
    assert [result["step"] for result in read_results(stopped)] == measured
    assert {"loss", "psnr_one_step", "psnr_sampled", "nominal_bits_per_pixel"} <= read_results(stopped)[0].keys()
    picture = events(stopped).Images("validation/original_one_step_sampled")[-1]
    assert picture.step == measured[-1]
    assert set(events(stopped).Tags()["tensors"]) == {"parameters", "_hparams_/session_start_info"}


def test_the_run_can_be_exported(stopped):
    model, params, info = load_for_export(stopped)
    config = ModelConfig.from_dict(model)
    unflatten_params(params, build_model(config).shapes)
    losses = scalars(stopped, "validation/loss")
    assert info["validation_loss"] == pytest.approx(min(losses.values()))
    assert losses[info["step"]] == info["validation_loss"]
    assert info["config"]["data"]["image_size"] == 32


def test_sigterm_saves_the_step_under_way_and_ends_well(stopped):
    text = (stopped / "train.log").read_text()
    assert "stopping as told after step" in text
    step = int(text.rsplit("saved step ", 1)[1].split()[0])
    assert step >= 5
    assert latest_step(stopped) == step
    assert load_for_export(stopped, step=step)[2]["step"] == step


@pytest.mark.slow
def test_steps_without_finite_gradients_stop_the_run_with_a_reason(photographs, tmp_path):
    config = TrainConfig.from_dict(small_settings())
    functional = build_model(config.model)
    # Finite, as a model folder has to be, and far too large for anything after the first layer.
    params = jax.tree.map(lambda x: np.full(x.shape, 1e30, np.float32), functional.shapes)
    save_bundle(tmp_path / "model", config.model, params, training={})
    changes = {**STEPS, "init_from": tmp_path / "model", "max_consecutive_skipped": 4}
    done = run_trainer(small_arguments(tmp_path / "run", photographs, **changes))
    assert done.returncode == 1
    assert "started from" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("cod train: error: stopped at step 4: 4 steps in a row had no finite gradients")
    assert "loss/flow is " in line
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    assert line.removeprefix("cod train: ") in (tmp_path / "run" / "train.log").read_text().splitlines()[-1]


@pytest.mark.slow
def test_steps_that_are_skipped_replace_no_checkpoint_and_the_run_can_go_back(photographs, tmp_path):
    workdir = tmp_path / "run"
    fields = {"validation__num_images": 0, "max_consecutive_skipped": 6}
    good = {**fields, "total_steps": 4, "checkpoint__every_steps": 2}
    assert run_trainer(small_arguments(workdir, photographs, **good)).returncode == 0
    # The first step leaves useless parameters, which are saved before that is known.
    bad = {**fields, "total_steps": 30, "checkpoint__every_steps": 1, "optimizer__learning_rate": 1e9}
    failed = run_trainer(small_arguments(workdir, photographs, **bad, log__every_steps=100))
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert "stopped at step 11: 6 steps in a row" in line
    assert line.endswith("the same command resumes after step 4 (set aside: 5.unusable)")
    last = run_trainer(small_arguments(workdir, photographs, **{**bad, "total_steps": 7}))
    assert last.returncode == 1
    assert "2 steps in a row had no finite gradients" in last.stderr
    assert "the last step is one of them, so it is not saved; raise total_steps, and the same command" in last.stderr
    again = run_trainer(small_arguments(workdir, photographs, **{**good, "total_steps": 6}))
    assert again.returncode == 0, again.stderr
    assert "resumed after step 4 of 6" in again.stdout
    assert latest_step(workdir) == 6


@pytest.mark.slow
def test_a_save_that_fails_stops_the_run_with_one_line(photographs, tmp_path):
    workdir = tmp_path / "run"
    fields = {"validation__num_images": 0, "total_steps": 10_000, "checkpoint__every_steps": 3}
    # 60 kilobytes are enough for the list of parameters, and not for a checkpoint.
    limited = ["sh", "-c", 'ulimit -f 120; exec "$@"', "sh", sys.executable, "-m", "cod_jax.train"]
    options = {"cwd": REPOSITORY, "env": one_device(), "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([*limited, *small_arguments(workdir, photographs, **fields)], check=False, **options)
    assert done.returncode == 1
    *warned, line = done.stderr.splitlines()
    assert all("compiled programs cannot be kept in" in warning for warning in warned)  # those files are too long too
    assert "the checkpoint of step 3 cannot be saved in" in line
    assert line.removeprefix("cod train: ") in (workdir / "train.log").read_text().splitlines()[-1]
    assert not list(workdir.glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__source": ""}, "data.source is empty"),
        ({"data__source": "nowhere"}, "nowhere does not exist"),
        ({"data__source": "empty"}, "empty"),
        ({"init_from": "nowhere"}, "nowhere"),
        ({"init_fresh": "('codec/*',)"}, "init_from must name a model with init_fresh or init_weights=raw"),
        ({"init_weights": "raw"}, "init_from must name a model with init_fresh or init_weights=raw"),
        ({"data__source": "memory://bucket/photos"}, "memory://bucket/photos does not exist"),
        ({"data__image_size": 256}, "can be used"),
        ({"mesh__data": 3}, "the mesh data 3 x fsdp 1 x tensor 1 does not fit 8 devices"),
        ({"batch_size": 12}, "to be a multiple of the 8 devices that share it"),
    ],
)
def test_unusable_settings_are_one_line_and_leave_nothing_behind(
    changes, message, photographs, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(small_arguments(tmp_path / "runs", photographs, **changes), command="train") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_the_progress_bar_is_for_terminals(stopped):
    assert "\r" not in (stopped / "train.log").read_text()
    assert os.path.getsize(stopped / "train.log") < 100_000
    assert time.time() > (stopped / "train.log").stat().st_mtime


@pytest.mark.slow
def test_three_stages_run_in_order_and_go_on_where_they_were_stopped(photographs, tmp_path):
    workdir = tmp_path / "chain"
    fields = {"total_steps": 20, "validation__num_images": 0, "batch_size": 4, "data__image_size": 32}
    arguments = [
        argument.replace("tiny.py", "tiny.py:all") if argument.startswith("--config=") else argument
        for argument in small_arguments(workdir, photographs, **fields)
    ]
    command = [sys.executable, "-m", "cod_jax.train", *arguments]
    with subprocess.Popen(command, cwd=REPOSITORY, env=one_device(), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        log = ""
        for line in running.stdout:
            log += line
            if "/stage1, raw weights" in log and "step 1/20" in line:
                running.send_signal(signal.SIGTERM)
    assert running.returncode == 0
    assert "stopping as told after step" in log
    assert latest_step(workdir / "stage1") == 20
    assert 0 < (latest_step(workdir / "stage2") or 0) < 20
    assert not (workdir / "stage3").exists()
    assert "grown (new layers): model/codec/decoder/output/1/" in log

    again = run_trainer(arguments)
    assert again.returncode == 0, again.stderr
    assert f"nothing to do in {workdir}/stage1" in again.stdout
    assert "resumed after step" in again.stdout
    assert f"started from {workdir}/stage2, ema weights: " in again.stdout
    assert "heads/reconstruction" in again.stdout
    assert latest_step(workdir / "stage3") == 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("pixel", marks=pytest.mark.soak), "latent"])
def test_tiny_relatives_of_the_published_models_learn_from_photographs(kind, tmp_path):
    photos, _ = write_demo_photographs(tmp_path)
    workdir = tmp_path / kind
    done = run_trainer(
        [
            f"--config={CONFIG}:kind={kind}",
            f"--workdir={workdir}",
            f"--config.data.source={photos}",
            "--config.data.validation_modulus=0",
            "--config.total_steps=200",
            "--config.batch_size=8",
        ],
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    for term, share in (("loss", 0.7), ("loss/flow", 0.6), ("loss/reconstruction", 0.8)):
        first, *_, last = scalars(workdir, term).values()
        assert last < share * first, term
    # The codes say something about the pictures: most of the 16 are in use.
    assert list(scalars(workdir, "codebook/perplexity").values())[-1] > 6


def test_a_folder_that_another_run_is_using_is_refused(photographs, tmp_path, capsys):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with (workdir / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(small_arguments(workdir, photographs), command="train") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{workdir} is in use by another run; wait for it or choose another --workdir" in line
