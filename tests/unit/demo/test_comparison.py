"""The report of the demo and what it complains about."""

from pathlib import Path

import numpy as np
from PIL import Image

from demo import baseline, comparison


def _measured(name: str, error: int) -> comparison.Measured:
    original = np.random.default_rng(len(name)).integers(60, 200, (20, 30, 3), dtype=np.uint8)
    return comparison.Measured(
        name=name,
        original=original,
        decoded=(original.astype(int) + error).astype(np.uint8),
        flat=baseline.paint_colours(original, baseline.fit_colours([original], 8, 4), 8),
        mean=baseline.paint_mean(original),
        file_bytes=12,
        bits_per_pixel=12 * 8 / 600,
        ms_ssim=0.5,
    )


def test_a_good_run_has_nothing_to_complain_about():
    losses = [1.0] * 10 + [0.5] * 90
    assert comparison.findings(losses, [_measured("a", 2), _measured("b", 3)]) == []


def test_a_loss_that_stays_and_a_codec_worse_than_the_mean_colour_are_named():
    problems = comparison.findings([1.0] * 100, [_measured("a", 2), _measured("b", -60)])
    assert len(problems) == 2
    assert "loss did not fall: it began at 1.000 and ended at 1.000" in problems[0]
    assert "mean squared error of 1802" in problems[1]


def test_a_loss_that_is_not_a_number_is_named():
    assert "nan" in comparison.findings([1.0, float("nan")], [_measured("a", 2)])[0]


def test_report_shows_every_photograph_the_commands_and_the_numbers(tmp_path: Path):
    training = [_measured("cat", 2), _measured("mug", 4)]
    comparison.write_report(
        tmp_path,
        training,
        [_measured("rocket", 9)],
        ([10, 20, 30], [3.0, 2.0, 1.0]),
        ["cod compress -m model cat.png"],
        ["A sentence."],
    )
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        for part in ("cat", "mug", "rocket", "mean of these", "A sentence.", "cod compress -m model cat.png"):
            assert part in text, (name, part)
    assert "| mean of these | 12 | 0.1600 | 39.10 | 0.500 | 10 |" in (tmp_path / "report.md").read_text()
    for name in ("training.png", "heldout.png", "loss.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size[0] > 100
