"""The parts of the demo that need no training."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cod_jax import demo, images
from cod_jax.evaluation import baseline, demo_report
from cod_jax.training.writers import TensorBoardWriter


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return demo.write_photographs(tmp_path_factory.mktemp("demo"))


def _measured(name: str, error: int) -> demo_report.Measured:
    original = np.random.default_rng(len(name)).integers(60, 200, (20, 30, 3), dtype=np.uint8)
    return demo_report.Measured(
        name=name,
        original=original,
        decoded=(original.astype(int) + error).astype(np.uint8),
        flat=baseline.paint_colours(original, baseline.fit_colours([original], 8, 4), 8),
        mean=baseline.paint_mean(original),
        file_bytes=12,
        bits_per_pixel=12 * 8 / 600,
        ms_ssim=0.5,
    )


def test_photographs_come_with_scikit_image_and_the_held_out_one_is_apart(photographs: tuple[Path, Path]):
    train, held_out = photographs
    assert len(list(train.iterdir())) == len(demo.TRAINING_PHOTOGRAPHS)
    assert [path.stem for path in held_out.iterdir()] == [Path(demo.HELD_OUT_PHOTOGRAPH).stem]
    for path in (*train.iterdir(), *held_out.iterdir()):
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            assert min(picture.size) == demo.SHORT_EDGE


def test_missing_scikit_image_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(demo.DemoError, match=r"pip install 'cod_jax\[demo\]'"):
        demo.write_photographs(tmp_path)


def test_flat_cells_beat_the_mean_colour_on_photographs(photographs: tuple[Path, Path]):
    pictures = [images.to_uint8_rgb(path) for path in sorted(photographs[0].iterdir())]
    colours = baseline.fit_colours(pictures, 16, 16)
    for picture in pictures:
        flat = demo_report.squared_error(picture, baseline.paint_colours(picture, colours, 16))
        assert flat < demo_report.squared_error(picture, baseline.paint_mean(picture))


def test_a_good_run_has_nothing_to_complain_about():
    losses = [1.0] * 10 + [0.5] * 90
    assert demo_report.findings(losses, [_measured("a", 2), _measured("b", 3)]) == []


def test_a_loss_that_stays_and_a_codec_worse_than_the_mean_colour_are_named():
    problems = demo_report.findings([1.0] * 100, [_measured("a", 2), _measured("b", -60)])
    assert len(problems) == 2
    assert "loss did not fall: it began at 1.000 and ended at 1.000" in problems[0]
    assert "mean squared error of 1802" in problems[1]


def test_a_loss_that_is_not_a_number_is_named():
    assert "nan" in demo_report.findings([1.0, float("nan")], [_measured("a", 2)])[0]


def test_report_shows_every_photograph_the_commands_and_the_numbers(tmp_path: Path):
    training = [_measured("cat", 2), _measured("mug", 4)]
    demo_report.write_report(
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


def test_the_loss_is_read_from_the_event_files(tmp_path: Path):
    writer = TensorBoardWriter(tmp_path / "run")
    for step in (10, 20, 30):
        writer.scalars(step, {"loss": 1 / step, "other": 0.0})
    writer.close()
    steps, values = demo.read_scalars(tmp_path, "loss")
    assert steps == [10, 20, 30]
    np.testing.assert_allclose(values, [0.1, 0.05, 1 / 30], rtol=1e-6)
    with pytest.raises(demo.DemoError, match="no scalar named accuracy"):
        demo.read_scalars(tmp_path, "accuracy")


def test_only_an_earlier_demo_is_replaced(tmp_path: Path):
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(demo.DemoError, match="not from an earlier demo"):
        demo.clear_output(foreign)
    assert (foreign / "thesis.txt").exists()

    own = tmp_path / "demo"
    demo.clear_output(own)
    (own / "run").mkdir()
    (own / "report.md").write_text("old")
    demo.clear_output(own)
    assert [path.name for path in own.iterdir()] == [demo.MARKER]


def test_a_failing_command_ends_the_demo_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 3))
    assert demo.main(["--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "$ python -m cod_jax.train --config" in captured.out
    assert "this command ended with exit code 3" in captured.err


def test_missing_output_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert demo.main([]) == 2
    assert "--output" in capsys.readouterr().err
