"""The report of the demo and what it complains about."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo import comparison
from demo.other_codecs import Coded


def _compared(name: str, error: int, *, jpeg_error: int = 20) -> comparison.Comparison:
    original = np.random.default_rng(len(name)).integers(60, 190, (190, 270, 3), dtype=np.uint8)

    def coded(codec: str, error: int) -> Coded:
        return Coded(codec, (original.astype(int) + error).astype(np.uint8), 513, "quality 3")

    return comparison.Comparison(name, original, (coded("cod_jax", error), coded("WebP", 9), coded("JPEG", jpeg_error)))


def test_a_good_run_has_nothing_to_complain_about():
    losses = [1.0, 0.9] * 5 + [0.5] * 90
    assert comparison.findings(losses, [_compared("a", 2), _compared("b", 3)]) == []


def test_a_loss_that_rises_and_a_model_worse_than_jpeg_are_named():
    problems = comparison.findings([1.0] * 50 + [1.5] * 50, [_compared("a", 9), _compared("b", 60, jpeg_error=1)])
    assert len(problems) == 2
    assert "loss of the fine-tuning rose: it began at 1.0000 and ended at 1.5000" in problems[0]
    assert "a PSNR of 20.81 dB and JPEG 35.12 dB" in problems[1]


def test_a_loss_that_is_not_a_number_is_named():
    assert "nan" in comparison.findings([1.0, float("nan")], [_compared("a", 2)])[0]


def _curve(psnr: float, kind: str = "model") -> dict[str, Any]:
    points = []
    for quality in (3, 4):
        mean = {"bpp": 0.1, "psnr": psnr + quality, "ms_ssim": 0.9}
        images = [{"name": "train/cat.png", **mean}]
        points.append({"settings": {"quality": quality}, "mean": mean, "images": images})
    return {"kind": kind, "points": points}


def test_report_shows_every_photograph_the_commands_and_the_numbers(tmp_path: Path):
    tuned = comparison.tuned_rows({"curves": [_curve(23), _curve(24), _curve(9, "baseline")]}, 4)
    assert tuned[-1] == ("mean", "0.100", "0.100", "27.00", "28.00", "0.9000", "0.9000")
    comparison.write_markdown(
        tmp_path,
        {"0.1": [_compared("cat", 2), _compared("mug", 4)], "0.25": [_compared("cat", 1), _compared("mug", 1)]},
        tuned,
        ([10, 20, 30], [3.0, 2.0, 1.0]),
        ["cod compress cat.png"],
        ["A sentence."],
    )
    text = (tmp_path / "report.md").read_text()
    for part in ("cat", "mug", "train/cat.png", "A sentence.", "cod compress cat.png", "quality 3"):
        assert part in text, part
    assert "| mean | cod_jax | 513 | 0.080 | 39.10 |" in text
    for name in ("at_0.1.png", "at_0.25.png", "comparison.png", "loss.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size[0] > 100
