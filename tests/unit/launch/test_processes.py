import pytest

from cod_jax.errors import UserError
from cod_jax.launch.processes import device_environment


def test_devices_on_the_cpu_replace_an_earlier_count(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_dump_to=x")
    environment = device_environment("cpu", 4, 1)
    assert environment["XLA_FLAGS"] == "--xla_dump_to=x --xla_force_host_platform_device_count=4"
    assert environment["JAX_PLATFORMS"] == "cpu"


def test_gpus_are_handed_out_in_order(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_environment("cuda", 2, 3) == {"CUDA_VISIBLE_DEVICES": "6,7"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-a,7")
    assert device_environment("cuda", 2, 1) == {"CUDA_VISIBLE_DEVICES": "GPU-a,7"}
    with pytest.raises(UserError, match="6 GPUs are needed, but CUDA_VISIBLE_DEVICES=4,5,GPU-a,7 names 4; use fewer"):
        device_environment("cuda", 2, 2)
