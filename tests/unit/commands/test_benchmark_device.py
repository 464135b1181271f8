"""All measurements of a device in one go, with commands that take no time."""

import json

import pytest

from cod_jax.benchmarks import device
from cod_jax.benchmarks.device import MEASURED, Measurement, measure_device, measurements
from cod_jax.commands.main import main, parse

QUICK = Measurement("quick", ["compare", "true", "true", "--repeats", "1"])
WRONG = Measurement("wrong", ["codec", "--size", "large"], {"LANG": "C"})
ENDLESS = Measurement("endless", ["compare", "sleep 600", "true"])


def test_a_failure_does_not_stop_the_others(tmp_path):
    found = measure_device(tmp_path, 300.0, [WRONG, QUICK])
    assert [one["state"] for one in found] == ["failed", "done"]
    assert json.loads((tmp_path / MEASURED).read_text()) == found
    assert json.loads((tmp_path / "quick.json").read_text())["ratio"] > 0
    assert any("second over first" in line for line in found[1]["printed"])
    assert "expected a size such as 768x512, got 'large'" in "".join(found[0]["printed"])


def test_nothing_goes_on_when_the_time_is_over(tmp_path):
    found = measure_device(tmp_path, 1.0, [ENDLESS, QUICK])
    assert [one["state"] for one in found] == ["stopped", "left out"]
    assert not (tmp_path / "quick.txt").exists()


@pytest.mark.parametrize(("chosen", "status"), [([QUICK], 0), ([QUICK, WRONG], 1)])
def test_the_command_prints_and_keeps_one_table(chosen, status: int, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device, "measurements", lambda *, small: chosen if small else [])
    assert main(["benchmark", "device", "--output", str(tmp_path), "--small"]) == status
    table = capsys.readouterr().out
    assert "quick: done after" in table
    assert "  cod benchmark compare true true --repeats 1" in table
    assert ("LANG='C' cod benchmark codec --size large" in table) == (WRONG in chosen)
    assert (tmp_path / "measured.txt").read_text() == table


@pytest.mark.parametrize("small", [False, True])
def test_every_measurement_is_a_command(small: bool):
    chosen = measurements(small=small)
    assert len({one.name for one in chosen}) == len(chosen) >= 5
    for one in chosen:
        assert parse(["benchmark", *one.arguments]).subject == one.arguments[0]
