import shlex

import pytest

from cod_jax.commands.main import main
from cod_jax.launch import plan
from tests.conftest import REPOSITORY
from tests.sweep_fixtures import BITS, RATE, SweepFolder


def sweep(arguments: list[str]) -> int:
    return main(arguments, command="sweep")


@pytest.fixture
def sweep_folder(tmp_path, monkeypatch) -> SweepFolder:
    return SweepFolder(tmp_path, monkeypatch)


def test_the_example_is_a_sweep_of_the_tiny_config(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    arguments = ["--sweep", "configs/sweeps/rate.py", "--config", "configs/tiny.py", "--workdir", str(tmp_path / "r")]
    assert main(["sweep", *arguments, "--dry-run", "--", "--config.data.source=photos"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 12 + 1
    assert lines[0] == "bits=4,commitment_weight=0.25,learning_rate=0.0003"
    assert shlex.split(lines[1]) == [
        *plan.TRAINER,
        "--config=configs/tiny.py",
        "--config.data.source=photos",
        f"--{BITS}=4",
        "--config.objective.bottleneck.commitment_weight=0.25",
        f"--{RATE}=0.0003",
        f"--workdir={tmp_path / 'r' / lines[0]}",
    ]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("expression", "arguments", "message"),
    [
        ("[]", [], "gives no points"),
        ("hyper.sweep(BITS, [4, 4.5])", [], "point bits=4.5: "),
        ("hyper.sweep(RATE, [1])", ["--", f"--{RATE}=2"], "is given after -- but the sweep sets it"),
        ("hyper.sweep(RATE, [1])", ["--", "--config.data.source="], "point learning_rate=1 has no data.source; add"),
        ("hyper.sweep(RATE, [1])", ["--", "--config.data.source=absent"], "absent does not exist; give a folder of"),
        ("hyper.sweep(RATE, [1])", ["--parallel", "0"], "expected a positive whole number, got '0'"),
        ("hyper.sweep(RATE, [1])", ["--config.seed=1"], "arguments: --config.seed=1"),
    ],
)
def test_wrong_usage_starts_nothing_and_says_why_in_one_line(sweep_folder, capsys, expression, arguments, message):
    assert sweep(sweep_folder.arguments(expression, *arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("cod sweep: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not sweep_folder.workdir.exists()


def test_a_work_folder_that_is_a_file_is_one_error(sweep_folder, capsys):
    sweep_folder.workdir.touch()
    assert sweep(sweep_folder.arguments("hyper.sweep(RATE, [0.1, 0.2])")) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"sweep: error: {sweep_folder.workdir} is a file, not a folder; choose another place\n")
    assert error.count("\n") == 1


def test_failures_give_status_1_and_the_same_command_goes_on(sweep_folder, capsys):
    arguments = sweep_folder.arguments("hyper.sweep(RATE, [0.1, 0.5])")
    assert [sweep(arguments), sweep(arguments)] == [1, 1]
    assert sweep_folder.calls() == {"learning_rate=0.1": 1, "learning_rate=0.5": 2}
    capsys.readouterr()
    assert main(["sweep", *arguments, "--dry-run"]) == 0
    assert "learning_rate=0.1 (done)" in capsys.readouterr().out


def test_each_point_may_have_gpus_of_its_own(sweep_folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    more = ("--parallel", "2", "--gpus-per-point", "1")
    assert sweep(sweep_folder.arguments("hyper.sweep(RATE, [0.1, 0.2])", *more)) == 0
    assert sweep_folder.gpus() == ["5", "7"]


def test_a_job_array_is_written_and_nothing_runs(sweep_folder, tmp_path, capsys):
    slurm = tmp_path / "s l"
    # The machines of the cluster may see other files than this one.
    more = ("--slurm", str(slurm), "--", "--config.data.source=absent")
    assert sweep(sweep_folder.arguments("hyper.sweep(RATE, [0.1, 0.2])", *more)) == 0
    assert f"2 points; submit them from this folder: sbatch '{slurm}/array.sh'" in capsys.readouterr().out
    assert "#SBATCH --job-name=runs\n" in (slurm / "array.sh").read_text()
    assert not sweep_folder.workdir.exists()


def test_a_job_array_that_cannot_be_written_is_an_error(sweep_folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = sweep_folder.arguments("hyper.sweep(RATE, [1])", "--slurm", str(tmp_path / "file" / "slurm"))
    assert sweep(arguments) == 2
    assert capsys.readouterr().err.startswith("cod sweep: error: ")
