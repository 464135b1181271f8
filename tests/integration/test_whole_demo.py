"""`make demo` as a newcomer runs it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cod_jax.model_folder.included import DEFAULT, FOLDER

REPOSITORY = Path(__file__).resolve().parents[2]
# Five minutes on two idle cores is the promise; a busy machine gets twice that before the test fails.
MAX_SECONDS = 600


@pytest.mark.slow
@pytest.mark.skipif(not (FOLDER / DEFAULT).is_dir(), reason="no model comes with this checkout")
def test_the_included_model_beats_jpeg_and_is_tuned(tmp_path: Path):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUMPY_RANK_PROMOTION")
    }
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "demo", "--output", str(tmp_path / "demo")],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert time.monotonic() - start < MAX_SECONDS
    assert "At most 0.25 bits per pixel" in result.stdout
    for name in ("report.html", "report.md", "comparison.png", "at_0.1.png", "at_0.25.png", "loss.png"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
