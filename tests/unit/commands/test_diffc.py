"""`cod compress --mode diffc`, and what the other commands make of its files."""

import json
from pathlib import Path

import numpy as np

from cod_jax import images
from tests.unit.commands.conftest import Cod


def test_a_file_of_mode_diffc_goes_through_all_commands(cod: Cod, photo: Path, tmp_path: Path):
    result = cod("compress", "-m", "MODEL", str(photo), "--mode", "diffc", "--steps", "3", "--json")
    assert result.status == 0, result.err
    told = json.loads(result.out)
    file = photo.with_suffix(".cod")
    assert told["file_bytes"] == file.stat().st_size

    facts = json.loads(cod("info", str(file), "--json").out)
    assert (facts["mode"], facts["symbols_mode"], facts["coded_steps"], facts["chunks"]) == ("diffc", "raw", 3, 1)
    assert 0 < facts["noise"] < 1
    shown = cod("info", str(file)).out
    assert f"symbols  {facts['symbols_bytes']} bytes, mode raw\n" in shown
    assert "steps    3 of 1 chunk, down to " in shown

    pictures = []
    for steps in ([], ["--coded-steps", "3"], ["--coded-steps", "1"]):
        result = cod("decompress", "-m", "MODEL", str(file), "-o", "out.png", "--force", *steps)
        assert result.status == 0, result.err
        pictures.append(images.to_uint8_rgb(tmp_path / "out.png"))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.any(pictures[0] != pictures[2])

    result = cod("decompress", "-m", "MODEL", str(file), "-o", "out.png", "--force", "--coded-steps", "4")
    assert result.status == 1
    assert "expected coded_steps from 0 to 3, the steps of this file, got 4" in result.err
    result = cod("compress", "-m", "MODEL", str(photo), "--mode", "diffc", "--bpp", "0.001", "--force")
    assert result.status == 1
    assert "which the first step of this picture takes, got 0.001; allow more" in result.err
