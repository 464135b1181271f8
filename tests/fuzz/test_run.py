"""Bounded runs of the fuzzer, and its mutations without it."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import NAMES, build, mutated, run_plain
from tests.fuzz.target import Target

REPOSITORY = Path(__file__).resolve().parents[2]


def _run(name: str, seconds: int, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.run",
        name,
        "--seconds",
        str(seconds),
        "--folder",
        str(folder),
        *options,
    ]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300 + 20 * seconds, check=False
    )


def test_every_reader_has_a_name():
    assert ("cod", *READERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_read(name: str, tmp_path: Path):
    target = build(name, tmp_path)
    assert target.seeds
    assert run_plain(target, tmp_path, seconds=60, most=10) == 10


def test_mutations_repeat_and_a_fault_is_kept(tmp_path: Path):
    seeds = [b"one two three", b"four"]
    first, again = ([mutated(seeds, random.Random(seed)) for seed in range(50)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 40

    def read(data: bytes) -> None:
        if data not in seeds:
            raise KeyError

    with pytest.raises(KeyError):
        run_plain(Target(seeds, read), tmp_path, seconds=60)
    assert (tmp_path / "fault").read_bytes() not in seeds


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_mutation_shows_a_fault(name: str, tmp_path: Path):
    assert run_plain(build(name, tmp_path), tmp_path, seconds=3, seed=1) > 10


@pytest.mark.parametrize(
    "seconds", [pytest.param(5, marks=pytest.mark.slow), pytest.param(1800, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed; it has packages for Linux on x86-64 only",
)
def test_no_input_shows_a_fault(name: str, seconds: int, tmp_path: Path):
    result = _run(name, seconds, tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Done" in result.stderr


@pytest.mark.slow
def test_a_target_runs_without_atheris(tmp_path: Path):
    result = _run("yaml", 3, tmp_path, "--plain")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Done: ")
