"""A compact codec from photographs to files, with its own config and commands."""

import json
from pathlib import Path

import numpy as np
import pytest

from cod_jax import images
from cod_jax.coding import container
from cod_jax.commands.main import main
from tests.conftest import REPOSITORY
from tests.training_fixtures import run_trainer
from tests.unit.models.test_compact import photograph


@pytest.mark.slow
def test_a_small_compact_codec_trains_from_scratch_and_codes(tmp_path: Path):
    photos = tmp_path / "photos"
    for index in range(24):
        images.save_png(photos / f"{index:02d}.png", photograph(160, 192, index))
    run, model = tmp_path / "run", tmp_path / "model"
    settings = {
        "data.source": photos,
        "data.validation_modulus": 4,
        "total_steps": 30,
        "optimizer.warmup_steps": 3,
        "log.every_steps": 30,
        "checkpoint.every_steps": 30,
        "validation.every_steps": 10,
        "validation.num_images": 4,
    }
    arguments = [f"--config.{name}={value}" for name, value in settings.items()]
    config = f"--config={REPOSITORY / 'configs' / 'compact.py'}:size=small"
    result = run_trainer([config, f"--workdir={run}", *arguments], timeout=560)
    assert result.returncode == 0, result.stderr
    assert "fitting the linear path of the fresh model to training pictures" in (run / "train.log").read_text()
    validations = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    first, *_, last = [line for line in validations if "loss" in line or "validation/loss" in line]
    name = "loss" if "loss" in first else "validation/loss"
    assert last[name] < first[name]

    assert main(["export", "--workdir", str(run), "--output", str(model)]) == 0
    photo = str(photos / "00.png")
    command = ["compress", "-m", str(model), photo, "--force", "-o"]
    assert main([*command, str(tmp_path / "before.cod")]) == 0
    assert main(["fit-prior", "-m", str(model), "--images", str(photos), "--force"]) == 0
    for quality in (1, 8):
        assert main([*command, str(tmp_path / f"{quality}.cod"), "--quality", str(quality)]) == 0
    low, best, before = ((tmp_path / f"{name}.cod").read_bytes() for name in ("1", "8", "before"))
    assert len(low) < 0.5 * len(best)
    # Three small pictures for each level are too few to predict well, but no file gets longer.
    assert len(best) <= len(before)
    assert {container.read(file).mode for file in (low, best)} <= {"factorized", "predictive"}
    assert main(["decompress", "-m", str(model), str(tmp_path / "8.cod"), "-o", str(tmp_path / "back.png")]) == 0
    back, original = (images.to_uint8_rgb(Path(path)).astype(float) for path in (tmp_path / "back.png", photo))
    assert 10 * np.log10(255**2 / np.mean((back - original) ** 2)) > 25
