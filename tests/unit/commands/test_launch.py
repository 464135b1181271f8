import pytest

from launch import local


@pytest.mark.parametrize("spelling", ["--devices-per-process", "--devices_per_process"])
def test_arguments_after_the_dashes_go_to_every_trainer(spelling, monkeypatch):
    started = []
    monkeypatch.setattr(local, "run", lambda *calls: started.append(calls) or 0)
    assert local.main(["--processes", "2", spelling, "3", "--", "--workdir", "x", "--", "y"]) == 0
    ((commands, environments),) = started
    assert [command[-4:] for command in commands] == [["--workdir", "x", "--", "y"]] * 2
    assert all(environment["XLA_FLAGS"].endswith("device_count=3") for environment in environments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--processes 3 --platform cuda -- --workdir x", "3 GPUs are needed"),
        ("--processes 2 --config configs/tiny.py", "--config configs/tiny.py; arguments of the trainer go behind --"),
        ("--processes 0 -- --workdir x", "must be at least 1"),
        ("--processes 2", "no arguments for the trainer"),
        ("", "required: --processes"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, message, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(SystemExit) as error:
        local.main(arguments.split())
    assert error.value.code == 2
    assert message in capsys.readouterr().err
