"""Several processes at once, on small commands instead of the trainer."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cod_jax.launch import local
from tests.conftest import REPOSITORY


def _python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_output_carries_the_number_of_its_process(capsys):
    commands = [_python("import os; print('I am', os.environ['WHO'], flush=True)")] * 2
    assert local.run(commands, [{"WHO": "first"}, {"WHO": "second"}]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["[0] I am first", "[1] I am second"]


def test_what_gloo_says_of_its_connections_is_left_out_and_lines_mixed_with_it_stay(capsys):
    text = "[Gloo] Rank [Gloo] Rank 1 is connected to 7 peer ranks. Expected number of connected peer ranks is : 7\n"
    text += "0 is connected to  is connected to 77 peer ranks. Expected number of connected peer ranks is : \n7\n"
    text += "[Gloo] Rank 12:34:56 step 3: loss 0.5\n\n"
    assert local.run([_python(f"print({text!r}, end='')")], [{}]) == 0
    assert capsys.readouterr().out.splitlines() == ["[0] [Gloo] Rank 12:34:56 step 3: loss 0.5", "[0] "]


def test_a_failure_stops_the_others_and_gives_its_exit_code(capsys):
    start = time.monotonic()
    assert local.run([_python("import time; time.sleep(60)"), _python("raise SystemExit(7)")], [{}, {}]) == 7
    assert time.monotonic() - start < 30
    assert "process [1] of 2 failed with exit code 7" in capsys.readouterr().err


def test_processes_that_were_told_to_stop_have_not_failed(capsys):
    commands = [_python("raise SystemExit(75)"), _python("import time; time.sleep(1); raise SystemExit(75)")]
    assert local.run(commands, [{}, {}], status_when_stopped=75) == 75
    assert local.run([_python("")], [{}], status_when_stopped=75) == 0
    assert capsys.readouterr().err == ""


def test_what_to_do_comes_after_what_the_others_say(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    other = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('lost'), sys.exit(1)))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "while True: time.sleep(0.1)"
    )
    fails = (
        "import pathlib, time\n"
        f"while not pathlib.Path({str(tmp_path / 'ready')!r}).exists(): time.sleep(0.1)\n"
        "raise SystemExit(7)"
    )
    assert local.run([_python(other), _python(fails)], [{}, {}]) == 7
    assert capsys.readouterr().out.splitlines() == [
        "process [1] of 2 failed with exit code 7",
        "[0] lost",
        "the same command resumes from the newest checkpoint, if one is saved",
    ]


def test_nothing_is_said_about_checkpoints_if_the_arguments_are_wrong(capsys):
    assert local.run([_python("raise SystemExit(2)")], [{}]) == 2
    assert capsys.readouterr().err.splitlines() == ["process [0] of 1 failed with exit code 2"]


def test_a_killed_process_counts_as_failed(capsys):
    assert local.run([_python("import os; os.kill(os.getpid(), 9)")], [{}]) == 128 + 9
    assert "process [0] of 1 was ended by signal 9" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_being_told_to_stop_reaches_the_trainers_as_sigterm(number):
    trainer = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('ready', flush=True)\n"
        # Short naps: a signal that arrives just before one long sleep would be handled after it.
        "for _ in range(600): time.sleep(0.1)\n"
    )
    script = (
        "import sys; from cod_jax.launch import local\n"
        f"sys.exit(local.run([[sys.executable, '-c', {trainer!r}]] * 2, [{{}}, {{}}]))"
    )
    with subprocess.Popen(_python(script), stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as launcher:
        assert launcher.stdout is not None
        assert {launcher.stdout.readline().strip() for _ in range(2)} == {"[0] ready", "[1] ready"}
        launcher.send_signal(number)
        assert launcher.wait(timeout=30) == 0


def test_the_processes_of_a_run_know_each_other():
    first, second = local.trainer_commands(2, ["--workdir", "x", "--", "y"])
    assert first[:3] == [sys.executable, "-m", "cod_jax.train"]
    assert "--num_processes=2" in first
    assert set(first) ^ set(second) == {"--process_id=0", "--process_id=1"}
    assert first[-4:] == second[-4:] == ["--workdir", "x", "--", "y"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("cpus", ["12", ""])
def test_slurm_steps_get_the_cpus_of_the_job(tmp_path, cpus):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "cpus: ${SRUN_CPUS_PER_TASK-unset}"\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
    environment |= {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_CPUS_PER_TASK": cpus}
    environment.pop("SRUN_CPUS_PER_TASK", None)
    command = ["bash", str(REPOSITORY / "launch" / "slurm.sh"), "--workdir", "a b"]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0] == f"cpus: {cpus or 'unset'}"
    assert lines[1].endswith("-m cod_jax.train --distributed --workdir a b")
