"""Sweeps, with a small script in place of the trainer."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch import hyper, run_queue, slurm_array, sweep

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CONFIG = str(REPOSITORY / "configs" / "tiny.py")
BITS, RATE = "config.model.codec.codebook_bits", "config.optimizer.learning_rate"

# Does what the learning rate says; a trainer that got to its last step leaves a checkpoint named after it.
TRAINER = """
import os, signal, sys, time
from pathlib import Path

values = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
workdir, rate = Path(values["workdir"]), float(values["config.optimizer.learning_rate"])
with (workdir / "calls.txt").open("a") as file:
    print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), file=file)

def save(*_):
    (workdir / "saved").touch()
    sys.exit(0)

if rate == 0.5:
    print("some output")
    sys.exit("trainer: error: no luck")
if rate == 0.25:
    sys.exit(0)
if rate >= 2:
    # Tells the queue to stop, as a user would; at 3 once more, because the trainer does not obey.
    tell = lambda *_: os.kill(os.getppid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, save if rate == 2 else tell)
    tell()
    for _ in range(600):
        time.sleep(0.1)
begin = time.monotonic()
time.sleep(float(os.environ.get("TRAINER_SECONDS", "0")))
(workdir / "times.txt").write_text(f"{begin} {time.monotonic()}")
(workdir / "checkpoints" / values.get("config.total_steps", "1000")).mkdir(parents=True, exist_ok=True)
"""


@pytest.fixture(autouse=True)
def trainer(tmp_path, monkeypatch):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    monkeypatch.setattr(run_queue, "TRAINER", (sys.executable, str(script)))


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def photos(tmp_path):
    """A folder that holds a picture by its name; nothing here reads it."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def config(tmp_path, photos):
    """The tiny config with that folder as the source of its images."""
    file = tmp_path / "configs" / "tiny.py"
    file.parent.mkdir()
    file.write_text(
        "from configs import tiny\n\ndef get_config():\n    config = tiny.get_config()\n"
        f"    config.data.source = {str(photos)!r}\n    return config\n"
    )
    return file


def write_sweep(tmp_path, expression):
    """A sweep file that returns a list of points."""
    path = tmp_path / "sweep.py"
    path.write_text(f"BITS, RATE = {BITS!r}, {RATE!r}\ndef get_hyper(hyper):\n    return {expression}\n")
    return str(path)


def command(tmp_path, expression, *arguments):
    file = write_sweep(tmp_path, expression)
    config = str(tmp_path / "configs" / "tiny.py")
    return ["--sweep", file, "--config", config, "--workdir", str(tmp_path / "runs"), *arguments]


def calls(workdir):
    """How often each point was started."""
    return {path.parent.name: len(path.read_text().splitlines()) for path in workdir.glob("*/calls.txt")}


def test_products_vary_the_last_field_fastest():
    points = hyper.product([hyper.sweep("a", [1, 2]), hyper.fixed("b", 0), hyper.sweep("c", ["x", "y"])])
    assert points == [
        {"a": 1, "b": 0, "c": "x"},
        {"a": 1, "b": 0, "c": "y"},
        {"a": 2, "b": 0, "c": "x"},
        {"a": 2, "b": 0, "c": "y"},
    ]


def test_sweeps_are_zipped_and_chained():
    assert hyper.zipit([hyper.sweep("a", range(2)), hyper.fixed("b", 5, length=2)]) == [
        {"a": 0, "b": 5},
        {"a": 1, "b": 5},
    ]
    assert hyper.chainit([hyper.sweep("a", [1]), hyper.product([])]) == [{"a": 1}, {}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hyper.sweep("a", []), "a has no values"),
        (lambda: hyper.sweep("a", "xy"), "a are the text 'xy'; give a list"),
        (lambda: hyper.zipit([hyper.sweep("a", [1, 2]), hyper.fixed("b", 0)]), "of 2, 1 points; .* equally long"),
        (lambda: hyper.product([hyper.fixed("a", 1), hyper.sweep("a", [1, 2])]), "combined set a; leave it out"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_values_are_written_as_the_trainer_reads_them(tmp_path):
    values = "[1, 1e-5, True, 'two words', ('a', 1), ['a'], __import__('numpy').float32(0.5)]"
    points = sweep.load_points(write_sweep(tmp_path, f"hyper.sweep('config.x', {values})"))
    assert [point["config.x"] for point in points] == ["1", "1e-05", "True", "two words", "('a', 1)", "('a',)", "0.5"]


def test_a_point_that_is_there_twice_is_taken_once(tmp_path):
    expression = "hyper.chainit([hyper.sweep(BITS, [4, 8]), hyper.sweep(BITS, [8, 6])])"
    assert [point[BITS] for point in sweep.load_points(write_sweep(tmp_path, expression))] == ["4", "8", "6"]


def test_folders_are_named_after_what_varies():
    points = hyper.product([hyper.sweep(BITS, ["4", "8"]), hyper.fixed("config.seed", "1"), hyper.sweep(RATE, ["0.1"])])
    assert sweep.point_names(points) == ["codebook_bits=4", "codebook_bits=8"]
    assert sweep.point_names(points[:1]) == ["codebook_bits=4,seed=1,learning_rate=0.1"]
    ends_alike = [{"config.log.every_steps": str(n), "config.checkpoint.every_steps": str(2 * n)} for n in (1, 2)]
    assert sweep.point_names(ends_alike) == [
        "log.every_steps=1,checkpoint.every_steps=2",
        "log.every_steps=2,checkpoint.every_steps=4",
    ]
    assert sweep.point_names([{"config.a": "1"}, {"config.a": "1", "config.b": "2"}, {}]) == [
        "a=1",
        "a=1,b=2",
        "default",
    ]


def test_folder_names_are_safe_and_unique():
    values = ["a/b", "a b", "A B", "../x", "", "x" * 300, "x" * 301, "('a', 'b')", "$(rm)", "-1"]
    names = sweep.point_names([{"config.x": value} for value in values])
    assert len({name.casefold() for name in names}) == len(values)
    assert all(re.fullmatch(r"x=[A-Za-z0-9._+,=~-]+", name) for name in names)
    assert max(map(len, names)) < 170
    assert names[-1] == "x=-1"
    assert names == sweep.point_names([{"config.x": value} for value in values])


def test_the_example_is_a_sweep_of_the_tiny_config(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    arguments = ["--sweep", "configs/sweeps/rate.py", "--config", "configs/tiny.py", "--workdir", str(tmp_path / "r")]
    assert sweep.main([*arguments, "--dry-run", "--", "--config.data.source=photos"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 12 + 1
    assert lines[0] == "codebook_bits=4,commitment_weight=0.25,learning_rate=0.0003"
    assert shlex.split(lines[1]) == [
        *run_queue.TRAINER,
        "--config=configs/tiny.py",
        "--config.data.source=photos",
        f"--{BITS}=4",
        "--config.objective.commitment_weight=0.25",
        f"--{RATE}=0.0003",
        f"--workdir={tmp_path / 'r' / lines[0]}",
    ]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("expression", "arguments", "message"),
    [
        (
            "hyper.sweep('config.optimizer.learning_rat', [1])",
            [],
            f"unknown field --{RATE[:-1]}; did you mean --{RATE}?",
        ),
        ("hyper.sweep(BITS, [4, 4.5])", [], "point codebook_bits=4.5: "),
        ("hyper.sweep(BITS, [4, 'x'])", [], "point codebook_bits=x: "),
        ("hyper.sweep('config.batch_size', [4, 0])", [], "point batch_size=0: config: batch_size is 0; it must be at"),
        ("hyper.sweep('optimizer.learning_rate', [1])", [], "the names of fields begin with 'config.'"),
        ("hyper.sweep(RATE, [None])", [], "a value is None; use numbers"),
        ("hyper.sweep('config.data.source', ['a\\nb'])", [], "must be one line"),
        ("hyper.sweep(RATE, [])", [], "cannot be used: UserError: config.optimizer.learning_rate has no values"),
        ("hyper.cross([])", [], "cannot be used: AttributeError"),
        ("hyper.product([])", [], "gives no points"),
        ("[]", [], "gives no points"),
        ("5", [], "cannot be used: TypeError"),
        ("hyper.sweep(RATE, [1])", ["--", f"--{RATE}=2"], "is given behind -- but the sweep sets it"),
        ("hyper.sweep(RATE, [1])", ["--", "--workdir", "x"], "--workdir is an option of the sweep; give it before --"),
        ("hyper.sweep(RATE, [1])", ["--", "--config.sed=2"], "error: unknown field --config.sed; did you mean"),
        ("hyper.sweep(RATE, [1])", ["--", "photos"], "unexpected argument 'photos'"),
        ("hyper.sweep(RATE, [1])", ["--parallel", "0"], "'0' is no positive number"),
        (
            "hyper.sweep(RATE, [1])",
            ["--config.seed=1"],
            "arguments: --config.seed=1; settings of the trainer go behind --",
        ),
    ],
)
def test_wrong_usage_starts_nothing_and_says_why_in_one_line(tmp_path, workdir, capsys, expression, arguments, message):
    assert sweep.main(command(tmp_path, expression, *arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("launch.sweep: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("expression", "arguments", "message"),
    [
        (
            "hyper.sweep(RATE, [0.1])",
            ["--config.data.source="],
            "point learning_rate=0.1 has no data.source; add -- --",
        ),
        ("hyper.sweep(RATE, [0.1])", ["--config.data.source=absent"], "absent does not exist; give a folder of images"),
        ("hyper.sweep('config.data.source', ['PHOTOS', 'empty'])", [], "empty holds no JPEG, PNG, "),
        ("hyper.sweep('config.data.validation_source', ['', 'PHOTOS', 'absent'])", [], "absent does not exist"),
    ],
)
def test_nothing_starts_without_images(tmp_path, workdir, photos, capsys, monkeypatch, expression, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert sweep.main(command(tmp_path, expression.replace("PHOTOS", str(photos)), "--", *arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("launch.sweep: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not workdir.exists()


def test_prepared_datasets_are_left_to_the_trainer(tmp_path, workdir):
    arguments = command(tmp_path, "hyper.sweep(RATE, [0.1])", "--", "--config.data.source=tfds:nothing")
    assert sweep.main(arguments) == 0
    assert calls(workdir) == {"learning_rate=0.1": 1}


def test_a_work_folder_that_is_a_file_is_one_error(tmp_path, workdir, capsys):
    workdir.touch()
    assert sweep.main(command(tmp_path, "hyper.sweep(RATE, [0.1, 0.2])")) == 2
    error = capsys.readouterr().err
    assert error == f"launch.sweep: error: {workdir} is a file, not a folder; choose another place\n"


def test_missing_files_are_named(tmp_path, capsys):
    (tmp_path / "empty.py").write_text("")
    for file, config, message in (
        ("absent.py", CONFIG, "there is no sweep file absent.py"),
        (str(tmp_path / "empty.py"), CONFIG, "defines no get_hyper(hyper)"),
        (write_sweep(tmp_path, "hyper.sweep(RATE, [1])"), "absent.py", "there is no config file absent.py"),
    ):
        assert sweep.main(["--sweep", file, "--config", config, "--workdir", str(tmp_path / "runs")]) == 2
        assert message in capsys.readouterr().err


def test_points_run_and_finished_ones_are_left_out(tmp_path, workdir, capsys):
    arguments = command(tmp_path, "hyper.sweep(RATE, [0.1, 0.5, 0.2])")
    assert sweep.main(arguments) == 1
    printed = capsys.readouterr()
    assert calls(workdir) == {"learning_rate=0.1": 1, "learning_rate=0.5": 1, "learning_rate=0.2": 1}
    assert "2 of 3 points are done, 1 failed" in printed.out
    assert printed.err == "learning_rate=0.5: failed with exit code 1: trainer: error: no luck\n"
    assert (workdir / "learning_rate=0.5" / "output.log").read_text() == "some output\ntrainer: error: no luck\n"

    assert sweep.main(arguments) == 1
    assert calls(workdir) == {"learning_rate=0.1": 1, "learning_rate=0.5": 2, "learning_rate=0.2": 1}
    assert "[1/3] learning_rate=0.1: done before" in capsys.readouterr().out
    assert sweep.main([*arguments, "--dry-run"]) == 0
    assert "learning_rate=0.1 (done)" in capsys.readouterr().out


def test_done_means_the_same_arguments_and_settings(tmp_path, workdir, config):
    text = config.read_text().replace("    return", "    config.seed = 0\n    return")
    config.write_text(text)
    base = command(tmp_path, "hyper.sweep(RATE, [0.1])")

    def times_run(*arguments):
        assert sweep.main([*base, *arguments]) == 0
        return sum(calls(workdir).values())

    assert [times_run(), times_run()] == [1, 1]
    longer = ("--", "--config.total_steps=2000")
    assert [times_run(*longer), times_run(*longer)] == [2, 2]
    config.write_text(text.replace("seed = 0", "seed = 1"))
    assert [times_run(*longer), times_run(*longer)] == [3, 3]
    (workdir / "learning_rate=0.1" / run_queue.DONE_FILE).write_text("{")
    assert times_run(*longer) == 4


def test_a_run_that_left_early_is_not_done(tmp_path, workdir, capsys):
    assert sweep.main(command(tmp_path, "hyper.sweep(RATE, [0.25])")) == 1
    assert "ended before step 1000 as if told to stop" in capsys.readouterr().err
    assert not (workdir / "learning_rate=0.25" / run_queue.DONE_FILE).exists()


def test_a_trainer_that_cannot_be_started_is_a_failure(tmp_path, workdir, capsys):
    workdir.mkdir()
    (workdir / "learning_rate=0.1").write_text("in the way")
    assert sweep.main(command(tmp_path, "hyper.sweep(RATE, [0.1, 0.2])")) == 1
    assert "learning_rate=0.1: cannot be started" in capsys.readouterr().err
    assert calls(workdir) == {"learning_rate=0.2": 1}


def test_as_many_as_asked_run_at_a_time_each_on_its_own_gpus(tmp_path, workdir, monkeypatch):
    monkeypatch.setenv("TRAINER_SECONDS", "0.5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    expression = "hyper.sweep(RATE, [0.1, 0.2, 0.3, 0.4])"
    assert sweep.main(command(tmp_path, expression, "--parallel", "2", "--gpus-per-point", "2")) == 0
    spans = [tuple(map(float, path.read_text().split())) for path in workdir.glob("*/times.txt")]
    together = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert max(together) == 2
    gpus = sorted(path.read_text().strip() for path in workdir.glob("*/calls.txt"))
    assert gpus == ["0,1", "0,1", "2,3", "2,3"]


def test_points_share_the_gpus_that_the_queue_may_use(tmp_path, workdir, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    arguments = command(tmp_path, "hyper.sweep(RATE, [0.1, 0.2])", "--parallel", "9", "--gpus-per-point")
    assert sweep.main([*arguments, "2"]) == 2
    assert "4 GPUs are needed, but CUDA_VISIBLE_DEVICES=5,7 names 2" in capsys.readouterr().err
    assert not calls(workdir)
    assert sweep.main([*arguments, "1"]) == 0
    assert sorted(path.read_text().strip() for path in workdir.glob("*/calls.txt")) == ["5", "7"]


@pytest.mark.parametrize(("rate", "saved"), [(2, True), (3, False)])
def test_being_told_to_stop_lets_trainers_save_and_starts_no_more(tmp_path, workdir, capsys, rate, saved):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert sweep.main(command(tmp_path, f"hyper.sweep(RATE, [0.1, {rate}, 0.2])")) == 128 + signal.SIGTERM
    assert calls(workdir) == {"learning_rate=0.1": 1, f"learning_rate={rate}": 1}
    assert (workdir / f"learning_rate={rate}" / "saved").exists() == saved
    assert "1 of 3 points are done, 0 failed" in capsys.readouterr().out
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_job_array_that_cannot_be_written_is_an_error(tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = command(tmp_path, "hyper.sweep(RATE, [1])", "--slurm", str(tmp_path / "file" / "slurm"))
    assert sweep.main(arguments) == 2
    assert capsys.readouterr().err.startswith("launch.sweep: error: ")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_job_array_runs_the_same_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(slurm_array, "TRAINER", run_queue.TRAINER)
    folder = tmp_path / "s l"
    expression = "hyper.sweep('config.data.source', ['my photos', \"it's $HOME\", 'x'])"
    arguments = command(tmp_path, expression, "--slurm", str(folder), "--parallel", "2", "--gpus-per-point", "4")
    assert sweep.main(arguments) == 0
    assert f"sbatch '{folder}/array.sh'" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    script = (folder / "array.sh").read_text()
    for line in ("--array=1-3%2", "--gpus-per-node=4", "--job-name=runs", f"--output='{folder}/%x-%A_%a.log'"):
        assert f"#SBATCH {line}\n" in script
    assert len((folder / "arguments.txt").read_text().splitlines()) == 3

    (tmp_path / "srun").write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"\n"
    )
    (tmp_path / "srun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
    runs = sweep.plan(sweep.load_points(arguments[1]), arguments[3], tmp_path / "runs", [])
    task = ["bash", str(folder / "array.sh")]
    for number, run in enumerate(runs, 1):
        environment["SLURM_ARRAY_TASK_ID"] = str(number)
        done = subprocess.run(task, env=environment, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout) == ["--kill-on-bad-exit=1", *run.command]
    environment["SLURM_ARRAY_TASK_ID"] = "4"
    failed = subprocess.run(task, env=environment, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "has no line 4" in failed.stderr


def test_help_shows_examples(capsys):
    assert sweep.main(["--help"]) == 0
    assert "examples:" in capsys.readouterr().out
