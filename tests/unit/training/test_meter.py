import pytest

from cod_jax.training.goodput import STEPPING, WAITING, WallTime
from cod_jax.training.meter import Meter


def test_the_meter_leaves_other_phases_out_and_counts_waiting(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = WallTime()
    clock.begin(STEPPING)
    meter = Meter(clock, batch_size=4, flops_per_step=10, peak_flops_per_second=20.0)
    now = 1.0
    with clock.phase(WAITING):
        now = 2.0
    with clock.phase("validating"):
        now = 6.0
    now = 9.0
    expected = {
        "images_per_second": 4.0,
        "step_seconds": 1.0,
        "data_wait_share": pytest.approx(0.2),
        "model_flops_utilisation": 0.5,
    }
    assert meter.report(5) == expected
    now = 14.0
    assert meter.report(5) == expected | {"data_wait_share": 0}
