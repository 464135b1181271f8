import pytest

from cod_jax.commands.main import main


@pytest.mark.parametrize("spelling", ["--devices-per-process", "--devices_per_process"])
def test_arguments_after_the_dashes_go_to_every_trainer(spelling, monkeypatch):
    started = []
    monkeypatch.setattr("cod_jax.launch.local.run", lambda *calls: started.append(calls) or 0)
    assert main(["launch", "--processes", "2", spelling, "3", "--", "--config", "c", "--workdir", "x"]) == 0
    ((commands, environments, _),) = started
    assert [command[-4:] for command in commands] == [["--config", "c", "--workdir", "x"]] * 2
    assert all(environment["XLA_FLAGS"].endswith("device_count=3") for environment in environments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--processes 3 --platform cuda -- --config c --workdir x", "3 GPUs are needed"),
        ("--processes 2 -- --config c", "required: --workdir; see cod train --help"),
        ("--processes 2 -- --config c --workdir x --status-when-stopped 1", "expected 0, or a status from 3 to 125"),
        ("--processes 2 --config configs/tiny.py", "--config configs/tiny.py; arguments of cod train go after --"),
        ("--processes 0 -- --workdir x", "expected a positive whole number, got '0'"),
        ("--processes 2", "expected arguments of cod train, got none; add --"),
        ("", "required: --processes"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, message, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert main(["launch", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cod launch: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_exit_code_of_a_failed_trainer_is_returned(monkeypatch):
    monkeypatch.setattr("cod_jax.launch.local.run", lambda *_: 7)
    assert main(["launch", "--processes", "1", "--", "--config", "c", "--workdir", "x"]) == 7


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--status-when-stopped", "75"], 75)])
def test_the_status_of_processes_that_were_told_to_stop_is_known(monkeypatch, arguments: list[str], status: int):
    started = []
    monkeypatch.setattr("cod_jax.launch.local.run", lambda *calls: started.append(calls) or 0)
    assert main(["launch", "--processes", "1", "--", "--config", "c", "--workdir", "x", *arguments]) == 0
    assert started[0][2] == status
