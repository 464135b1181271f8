"""An evaluation in processes of its own, killed in the middle."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cod_jax import images
from tests.model_fixtures import gradient_image

TABLES = ("per_image.csv", "summary.csv", "bd.csv", "plots/rate_psnr.svg")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_tables_of_another_run(tmp_path: Path):
    for index in range(2):
        images.save_png(tmp_path / "photos" / f"{index}.png", gradient_image(48, 64))
    arguments = ["-m", "compact", "--quality", "1,4,6,8", "--baselines", "jpeg", "--images", "photos"]
    command = [sys.executable, "-m", "cod_jax", "evaluate", *arguments, "--output"]

    def finish(output: str) -> dict[str, bytes]:
        subprocess.run([*command, output], cwd=tmp_path, check=True, timeout=300, capture_output=True)
        return {name: (tmp_path / output / name).read_bytes() for name in TABLES}

    whole = finish("whole")
    process = subprocess.Popen([*command, "killed"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records, deadline = tmp_path / "killed" / "records.jsonl", time.monotonic() + 200
    while not (records.exists() and records.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert finish("killed") == whole
    results = json.loads((tmp_path / "killed" / "results.json").read_bytes())
    assert results["curves"][0]["about"]["card"].startswith("| | |")
    assert results["curves"][0]["about"]["peak_memory_bytes"]["decode"] > 0
