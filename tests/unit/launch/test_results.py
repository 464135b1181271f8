"""The table of a sweep's results."""

import dataclasses

from cod_jax.launch.results import table
from cod_jax.launch.run_queue import run_queue
from cod_jax.training.results import append_result


def test_the_best_point_of_each_column_is_named(sweep_folder):
    runs = sweep_folder.runs("hyper.sweep(RATE, [0.1, 0.2, 0.3])")
    assert table(runs) == []
    for run, losses in zip(runs, ([2.0, 1.0], [3.0, 1.5], []), strict=True):
        for step, loss in enumerate(losses, 1):
            run.workdir.mkdir(parents=True, exist_ok=True)
            append_result(run.workdir, step, {"loss": loss, "psnr_one_step": 10 * loss, "nominal_bits_per_pixel": 0.5})
    lines = table(runs)
    assert [line.split() for line in lines[1:4]] == [
        ["learning_rate=0.1", "2", "1.0000*", "10.00", "dB", "0.5000"],
        ["learning_rate=0.2", "2", "1.5000", "15.00", "dB*", "0.5000"],
        ["learning_rate=0.3", "-", "-", "-", "-"],
    ]
    assert lines[-2:] == ["best by loss: learning_rate=0.1", "best by PSNR in one step: learning_rate=0.2"]


def test_each_point_is_shown_at_the_step_that_ranks_best(sweep_folder):
    runs = [
        dataclasses.replace(run, settings={**run.settings, "checkpoint": {"best_by": "ms_ssim_one_step"}})
        for run in sweep_folder.runs("hyper.sweep(RATE, [0.1, 0.2])")
    ]
    for run, values in zip(runs, ([0.9, 0.8], [0.5, 0.7]), strict=True):
        run.workdir.mkdir(parents=True)
        for step, value in enumerate(values, 1):
            append_result(run.workdir, step, {"loss": 1.0 / step, "ms_ssim_one_step": value})
    lines = table(runs)
    assert [line.split() for line in lines[1:3]] == [
        ["learning_rate=0.1", "1", "1.0000", "0.9*"],
        ["learning_rate=0.2", "2", "0.5000*", "0.7"],
    ]
    assert lines[3] == "at the step with the best ms_ssim_one_step of each point; * is the best of a column"
    assert lines[-1] == "best by ms_ssim_one_step: learning_rate=0.1"


def test_losses_of_other_objectives_are_not_compared_without_a_word(sweep_folder):
    runs = sweep_folder.runs("hyper.sweep('config.objective.bottleneck.commitment_weight', [0.25, 1.0])")
    for run in runs:
        run.workdir.mkdir(parents=True)
        append_result(run.workdir, 1, {"loss": float("nan")})
    lines = table(runs)
    assert "the points have different objectives, so their losses cannot be compared" in lines
    assert not any(line.startswith("best by") for line in lines)


def test_a_queue_ends_with_the_table(sweep_folder, capsys):
    runs = sweep_folder.runs("hyper.sweep(RATE, [0.1])")
    runs[0].workdir.mkdir(parents=True)
    append_result(runs[0].workdir, 1000, {"loss": 0.5})
    assert run_queue(runs, 1) == 0
    assert "best by loss: default\n" in capsys.readouterr().out.replace(runs[0].name, "default")
