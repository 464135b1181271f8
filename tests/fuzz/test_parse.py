"""A bounded run of the fuzzer."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.folder import FOLDER

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "seconds", [pytest.param(60, marks=pytest.mark.slow), pytest.param(3600, marks=pytest.mark.soak)]
)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed; it has packages for Linux on x86-64 only",
)
def test_no_input_crashes_the_parser(seconds: int, tmp_path: Path):
    for file in FOLDER.glob("*.cod"):
        shutil.copy(file, tmp_path)
    options = [f"-max_total_time={seconds}", "-max_len=512", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, "-m", "tests.fuzz.parse", str(tmp_path), *options]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20 * seconds, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Done" in result.stderr
