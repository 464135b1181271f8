"""Two commands that are timed pair by pair."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cod_jax.benchmarks import ceilings
from cod_jax.benchmarks.pairs import median_interval
from cod_jax.commands.main import main

QUICK = f"{sys.executable} -c pass"


def sleeping(seconds: float) -> str:
    return f"{sys.executable} -c 'import time; time.sleep({seconds})'"


def test_a_slowed_command_is_found(tmp_path: Path, capsys):
    output = tmp_path / "pairs.json"
    assert main(["benchmark", "compare", QUICK, sleeping(0.3), "--repeats", "6", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["interval"][0] > 1
    assert report["interval"][0] <= report["ratio"] <= report["interval"][1]
    assert [len(report[name]["seconds"]) for name in ("first", "second")] == [6, 6]
    assert "second over first: " in capsys.readouterr().out


def test_checkouts_are_compared(tmp_path: Path, capsys):
    for name, seconds in (("old", 0.0), ("new", 0.3)):
        (tmp_path / name / "cod_jax").mkdir(parents=True)
        (tmp_path / name / "cod_jax" / "__init__.py").write_text(f"import time; time.sleep({seconds})")
    folders = [str(tmp_path / name) for name in ("old", "new")]
    command = f"{sys.executable} -c 'import cod_jax'"
    assert main(["benchmark", "compare", command, "--checkouts", *folders, "--repeats", "1"]) == 0
    assert "too few pairs for an interval, 1 pairs" in capsys.readouterr().out
    assert main(["benchmark", "compare", command, "--checkouts", folders[0], str(tmp_path)]) == 2
    assert "to hold the folder cod_jax; give the root of a checkout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([QUICK], 2, "expected two commands, or one command with --checkouts A B"),
        ([QUICK, QUICK, "--checkouts", "a", "b"], 2, "expected two commands, or one command with --checkouts A B"),
        ([QUICK, "no_such_program_at_all"], 2, "'no_such_program_at_all' cannot be started"),
        ([QUICK, f"{sys.executable} -c 'raise SystemExit(3)'"], 1, "failed: exit status 3"),
    ],
)
def test_commands_that_cannot_be_compared(arguments, status, message, capsys):
    assert main(["benchmark", "compare", *arguments]) == status
    assert message in capsys.readouterr().err


def test_the_interval_holds_the_median_as_often_as_it_says():
    assert median_interval([3.0, 1.0, 2.0]) == (None, None)
    assert median_interval([float(value) for value in range(6)]) == (0.0, 5.0)  # 2 / 2^6 lie outside
    draws = np.random.default_rng(0).exponential(size=(2000, 15))
    intervals = [median_interval(row.tolist()) for row in draws]
    held = np.mean([low <= np.log(2) <= high for low, high in intervals if low is not None and high is not None])
    assert 0.95 <= held < 0.98


def test_shares_of_the_ceilings():
    ceiling = {"flops_per_second": 100.0, "bytes_per_second": 10.0}
    bound_by_products = ceilings.compared(4.0, 200.0, 5.0, ceiling)
    assert bound_by_products["share_of_matrix_product"] == bound_by_products["share_of_roofline"] == 0.5
    bound_by_copies = ceilings.compared(4.0, 200.0, 30.0, ceiling)
    assert (bound_by_copies["share_of_matrix_product"], bound_by_copies["share_of_roofline"]) == (0.5, 0.75)
    assert ceilings.compared(4.0, 200.0, None, ceiling)["share_of_roofline"] == 0.5
