import io
import logging
import math

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cod_jax.training.meter import Meter
from cod_jax.training.report import Report, TrainingError, average
from cod_jax.training.writers import TensorBoardWriter


def read(folder) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


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


def test_tensorboard_reads_scalars_pictures_texts_and_hyper_parameters(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    writer = TensorBoardWriter(tmp_path)
    writer.hyper_parameters({"optimizer.learning_rate": 1e-3, "data.source": "photos", "sharding.batch": ("data",)})
    writer.scalars(3, {"loss": 0.5, "loss/flow": 0.25})
    writer.images(3, {"validation/picture": picture})
    writer.texts(0, {"parameters": "a table"})
    writer.close()
    events = read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("loss/flow")] == [(3, 0.25)]
    encoded = events.Images("validation/picture")[0].encoded_image_string
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)
    assert events.Tensors("parameters")[0].tensor_proto.string_val[0] == b"a table"
    assert "_hparams_/session_start_info" in events.Tags()["tensors"]


def test_a_resumed_run_replaces_what_an_interrupted_one_wrote(tmp_path):
    for first, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (3, {3: 30.0})):
        writer = TensorBoardWriter(tmp_path, first_step=first)
        for step, value in values.items():
            writer.scalars(step, {"loss": value})
        writer.close()
    assert [event.value for event in read(tmp_path).Scalars("loss")] == [1.0, 2.0, 30.0]


def test_processes_beside_the_first_write_nothing():
    writer = TensorBoardWriter(None)
    writer.scalars(1, {"loss": 1.0})
    writer.flush()
    writer.close()


def test_metrics_are_averaged_over_finite_steps_and_counters_keep_their_last_value():
    window = [metrics(1, 1.0), metrics(2, math.nan, 1), metrics(3, 3.0)]
    values = average(window)
    assert values["loss"] == 2.0
    assert values["learning_rate"] == pytest.approx(0.03)
    assert values["consecutive_skipped"] == 0
    assert math.isnan(average([metrics(1, math.nan, 1)])["loss"])


def test_a_log_line_is_for_people_and_left_out_images_are_named_once(tmp_path, caplog):
    report = Report(TensorBoardWriter(tmp_path), total_steps=10, max_consecutive_skipped=3)
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


def test_many_skipped_steps_in_a_row_stop_the_run_and_name_the_term(tmp_path):
    report = Report(TensorBoardWriter(None), total_steps=100, max_consecutive_skipped=3)
    report.training(2, [metrics(1, math.nan, 1), metrics(2, math.nan, 2)], SPEED, {})
    window = [metrics(3, math.nan, 3, math.inf), metrics(4)]
    with pytest.raises(
        TrainingError, match=r"3 steps in a row .*\(loss is nan, loss/flow is nan, gradient_norm is inf\)"
    ):
        report.training(4, window, SPEED, {})


def test_the_meter_leaves_pauses_out_and_counts_waiting(monkeypatch):
    now = iter([0.0, 1.0, 2.0, 3.0, 7.0, 9.0, 9.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    meter = Meter(batch_size=4, flops_per_step=10, peak_flops_per_second=20.0)  # starts at 0
    with meter.waiting():  # 1 to 2
        pass
    with meter.paused():  # 3 to 7
        pass
    values = meter.report(5)  # at 9: 5 seconds
    assert values == {
        "images_per_second": 4.0,
        "step_seconds": 1.0,
        "data_wait_share": pytest.approx(0.2),
        "model_flops_utilisation": 0.5,
    }
