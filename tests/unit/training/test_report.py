import logging
import math

import numpy as np
import pytest

from cod_jax.training.report import Report, average
from cod_jax.training.writers import TensorBoardWriter


def metrics(step: int, loss: float = 1.0, consecutive_skipped: int = 0, gradient_norm: float = 1.0) -> dict:
    values = {
        "loss": loss,
        "loss/flow": loss,
        "gradient_norm": gradient_norm,
        "learning_rate": step / 100,
        "skipped": consecutive_skipped,
        "consecutive_skipped": consecutive_skipped,
        "codebook/perplexity": 4.0,
        "codebook/usage": 0.625,
    }
    return {name: np.array(value, np.float32) for name, value in values.items()}


SPEED = {"images_per_second": 8.0, "step_seconds": 0.5, "data_wait_share": 0.25}


def test_metrics_are_averaged_over_finite_steps_and_counters_keep_their_last_value():
    window = [metrics(1, 1.0), metrics(2, math.nan, 1), metrics(3, 3.0)]
    values = average(window)
    assert values["loss"] == 2.0
    assert values["learning_rate"] == pytest.approx(0.03)
    assert values["consecutive_skipped"] == 0
    assert math.isnan(average([metrics(1, math.nan, 1)])["loss"])


def test_a_log_line_is_for_people_and_left_out_images_are_named_once(tmp_path, caplog):
    report = Report(TensorBoardWriter(tmp_path), total_steps=10)
    with caplog.at_level(logging.INFO, "cod_jax"):
        report.training(5, [metrics(5, 0.5)], SPEED, {"bad.jpg": "truncated"})
        report.training(6, [metrics(6, 0.5)], SPEED | {"model_flops_utilisation": 0.4}, {"bad.jpg": "truncated"})
    first, line, last = [record.getMessage() for record in caplog.records]
    assert first == "image left out: bad.jpg: truncated"
    assert line == (
        "step 5/10: loss 0.5000 (flow 0.5000), gradient_norm 1, perplexity 4.0, 0.62 of the codes in use, 8 images/s, "
        "0.5 s/step, 25 % waiting for data"
    )
    assert last.endswith("40.0 % of peak")


@pytest.mark.parametrize(
    ("readers", "advice"),
    [
        ((1, 0), "set --config.data.num_threads=2, the number of cores here; it is 1"),
        ((2, 0), "--config.data.num_workers=N, or give this process more cores"),
        ((0, 1), "set --config.data.num_threads=2, for 2 cores and 1 worker processes; it is 0"),
        ((0, 2), "of images just larger than the crops, or give this process more cores"),
    ],
)
def test_a_run_that_keeps_waiting_for_data_says_once_what_to_do(tmp_path, caplog, monkeypatch, readers, advice):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    report = Report(TensorBoardWriter(tmp_path), total_steps=20, num_threads=readers[0], num_workers=readers[1])
    for step, share in enumerate([0.5, 0.5, 0.0, 0.3, 0.3, 0.25, 0.3, 0.3, 0.3], 1):
        report.training(step, [metrics(step)], SPEED | {"data_wait_share": share}, {})
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith("the steps wait for data 25 % of the time: ")
    assert advice in line


def test_the_memory_of_the_fullest_device_is_in_the_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("cod_jax.training.memory.in_use", lambda: {"memory/peak_bytes_in_use": 3.5 * 2**30})
    with caplog.at_level(logging.INFO, "cod_jax"):
        Report(TensorBoardWriter(tmp_path), total_steps=10).training(1, [metrics(1)], SPEED, {})
    assert caplog.records[-1].getMessage().endswith(", at most 3.5 GiB of device memory")
