"""`cod train` before it trains: its arguments, and its help."""

import pytest

from cod_jax.commands.main import main
from tests.conftest import REPOSITORY
from tests.training_fixtures import CONFIG


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --config, --workdir"),
        (["--config"], "argument --config: expected one argument"),
        ([f"--config={REPOSITORY}/configs/base.py:2", "--workdir=w"], "base.py has no options; leave out :2"),
        ([f"--config={REPOSITORY}/configs/base.py:all", "--workdir=w"], "base.py has no stages; leave out :all"),
        ([f"--config={CONFIG}:all,kind=big", "--workdir=w"], "no kind 'big'; choose one of lite, pixel, latent"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.optimizer=1"], "--config.optimizer is a group of fields"),
        (
            [f"--config={CONFIG}", "--workdir=memory://b/r"],
            "checkpoint.address must begin with gs:// or s3://, got memory://b/r; other storage must be mounted",
        ),
        ([f"--config={CONFIG}"], "required: --workdir"),
        (["--config=nothing.py", "--workdir=w"], "there is no config file nothing.py"),
        (["--config=broken.py", "--workdir=w"], "config file broken.py cannot be used: SyntaxError"),
        (["--config=empty.py", "--workdir=w"], "config file empty.py cannot be used: AttributeError"),
        ([f"--config={REPOSITORY}/configs/lite.py:128", "--workdir=w"], "no stage '128'; choose one of 1, 2, 3"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.batch_siz=8"], "did you mean --config.batch_size?"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.ema.dekay=0"], "unknown field --config.ema.dekay; did you"),
        (
            [f"--config={CONFIG}", "--workdir=w", "--config.batch_size=x"],
            "batch_size must be a whole number, got 'x'",
        ),
        ([f"--config={CONFIG}", "--workdir=w", "--config.ema.decay=x"], "--config.ema.decay must be a number, got 'x'"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.batch_size=0"], "batch_size must be at least 1, got 0"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.model.codec.factorized=None"], "unknown field --config.model"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.model.codec.bottleneck=None"], "bottleneck"),
        ([f"--config={CONFIG}", "--workdir=w", "--config.model=None"], "--config.model"),
        ([f"--config={CONFIG}", "--workdir=w", "--flagfile=missing"], "unrecognized arguments: --flagfile=missing"),
        ([f"--config={CONFIG}", "--workdir=w", "--steps=3"], "unrecognized arguments: --steps=3"),
        (
            [f"--config={CONFIG}", "--workdir=w", "--profile=3..1"],
            "expected the first and the last step",
        ),
        ([f"--config={CONFIG}", "--workdir=w", "--config.limits.join_seconds=0"], "join_seconds must be at least 1"),
        ([f"--config={CONFIG}", "--workdir=w", "more"], "unrecognized arguments: more"),
        (
            [f"--config={CONFIG}", "--workdir=w", "--process_id=0"],
            "--coordinator-address and --num-processes missing; give all three options of a process",
        ),
    ],
)
def test_unusable_arguments_are_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    (tmp_path / "empty.py").touch()
    assert main(arguments, command="train") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cod train: error: ")
    assert message in line
    assert not (tmp_path / "w").exists()


def test_a_folder_of_stages_takes_no_run_of_one(tmp_path, capsys):
    (tmp_path / "run" / "stage1" / "checkpoints").mkdir(parents=True)
    arguments = [f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}", f"--config.data.source={tmp_path}"]
    assert main(arguments, command="train") == 2
    assert "run contains the stages stage1 of another run; name one of them" in capsys.readouterr().err


def test_help_lists_the_config_files_with_their_options(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # then those of the checkout are listed
    assert main(["--help"], command="train") == 0
    out = capsys.readouterr().out
    assert "  configs/lite.py: CoD-Lite pre-training" in out
    assert "\n      1, 2, 3, all\n      size=xl, 330m, 114m, 49m\n" in out
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text(
        '"""My run."""\nOPTIONS = {"stage": ("a", "b")}\ndef get_config(x): ...\n'
    )
    (tmp_path / "configs" / "computed.py").write_text("OPTIONS = dict(a=1)\ndef get_config(): ...\n")
    (tmp_path / "configs" / "presets.py").write_text("def parts(): ...\n")
    (tmp_path / "configs" / "broken.py").write_text("def get_config(:\n")
    assert main(["--help"], command="train") == 0
    out = capsys.readouterr().out
    assert "\n  configs/computed.py: \n  configs/mine.py: My run.\n      a, b\n\nexit status" in out
