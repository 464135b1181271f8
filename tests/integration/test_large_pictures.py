"""Memory and time of large pictures with the included model: what a network takes does not grow with the picture."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY

# All are computed in tiles, the last one is 33 megapixels.
SIZES = ((3840, 2160), (7680, 2160), (7680, 4320))
LARGEST_BYTES = 4 * 10**9


def run(cache: Path, *arguments: str) -> tuple[float, int]:
    """Run a command and return the processor seconds and the largest memory in bytes that it took."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "cod_jax", *arguments, "--force", "--max-pixels", "40000000"]
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def picture(width: int, height: int) -> np.ndarray:
    """Return a picture with shades, edges and grain, uint8 [H, W, 3]."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    shades = 120 + 60 * np.sin(rows / 190) * np.cos(columns / 260) + 30 * ((rows // 97 + columns // 131) % 2)
    grain = np.random.default_rng(0).normal(0, 6, (height, width)).astype(np.float32)
    grey = (shades + grain)[..., None] * np.array([1.0, 0.9, 0.8], np.float32)
    return grey.clip(0, 255).astype(np.uint8)


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs the memory of a process that has ended")
def test_33_megapixels_take_less_than_4_gb_and_time_grows_with_the_pixels(tmp_path: Path):
    seconds: dict[str, list[float]] = {"compress": [], "decompress": []}
    for width, height in SIZES:
        names = [str(tmp_path / name) for name in ("a.png", "a.cod", "b.png")]
        # Compressed little, because writing it is not what is measured.
        Image.fromarray(picture(width, height)).save(names[0], compress_level=1)
        for command, (source, target) in (("compress", names[:2]), ("decompress", names[1:])):
            quality = ["--quality", "4"] if command == "compress" else []
            # The first call compiles what the second one finds.
            calls = [run(tmp_path / "cache", command, source, "-o", target, *quality) for _ in range(2)]
            assert max(peak for _, peak in calls) < LARGEST_BYTES, f"{command} {width}x{height}"
            seconds[command].append(calls[1][0])
    for taken in seconds.values():
        # With the start of a process, twice the pixels take less than twice the time.
        assert taken[1] < 2.3 * taken[0]
        assert taken[2] < 2.3 * taken[1]
