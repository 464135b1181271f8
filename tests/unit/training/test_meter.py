import pytest

from cod_jax.training.meter import Meter


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
