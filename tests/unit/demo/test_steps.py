"""The parts of the demo that need no training."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.training.writers import TensorBoardWriter
from demo import steps
from demo.__main__ import main


def test_the_loss_is_read_from_the_event_files(tmp_path: Path):
    writer = TensorBoardWriter(tmp_path / "run")
    for step in (10, 20, 30):
        writer.scalars(step, {"loss": 1 / step, "other": 0.0})
    writer.close()
    numbers, values = steps.read_scalars(tmp_path, "loss")
    assert numbers == [10, 20, 30]
    np.testing.assert_allclose(values, [0.1, 0.05, 1 / 30], rtol=1e-6)
    with pytest.raises(UserError, match="no scalar named accuracy"):
        steps.read_scalars(tmp_path, "accuracy")


def test_only_an_earlier_demo_is_replaced(tmp_path: Path):
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not from an earlier demo"):
        steps.clear_output(foreign)
    assert (foreign / "thesis.txt").exists()

    own = tmp_path / "demo"
    steps.clear_output(own)
    (own / "run").mkdir()
    (own / "report.md").write_text("old")
    steps.clear_output(own)
    assert [path.name for path in own.iterdir()] == [steps.MARKER]


def test_a_failing_command_ends_the_demo_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 3))
    assert main(["--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "$ cod compress -r" in captured.out
    assert "this command ended with exit code 3" in captured.err


def test_missing_output_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "--output" in capsys.readouterr().err
