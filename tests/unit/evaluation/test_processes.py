"""Processes that do the work of an evaluation."""

import os
from pathlib import Path

import pytest

from cod_jax.evaluation import processes
from cod_jax.evaluation.processes import fresh_processes, one_device_each, peak_memory_bytes


@pytest.mark.parametrize(
    ("platform", "number", "environment", "expected"),
    [
        ("cpu", 8, {}, [{}]),
        ("tpu", 4, {}, [{}]),
        ("gpu", 1, {}, [{}]),
        ("gpu", 2, {}, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        ("gpu", 2, {"CUDA_VISIBLE_DEVICES": "3, 5"}, [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]),
        ("gpu", 2, {"ROCR_VISIBLE_DEVICES": "1,0"}, [{"ROCR_VISIBLE_DEVICES": "1"}, {"ROCR_VISIBLE_DEVICES": "0"}]),
    ],
)
def test_each_process_sees_one_gpu(platform, number, environment, expected):
    assert one_device_each(platform, number, environment) == expected


def test_each_process_has_its_environment():
    environments = [{"COD_JAX_TEST": str(number)} for number in range(2)]
    with fresh_processes(environments) as executor:
        seen = {executor.submit(os.getenv, "COD_JAX_TEST").result() for _ in range(4)}
    assert seen <= {"0", "1"}
    assert seen
    assert "COD_JAX_TEST" not in os.environ


def test_the_peak_of_memory_is_that_of_this_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t  123 kB\n")
    monkeypatch.setattr(processes, "STATUS", status)
    assert peak_memory_bytes() == 123 * 1024
    # Some sandboxes do not tell, and other systems have no such file.
    status.write_text("Name:\tpython\n")
    for _ in range(2):
        peak = peak_memory_bytes()
        assert peak is not None
        assert peak > 10_000_000
        status.unlink(missing_ok=True)
