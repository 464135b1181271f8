import signal

import pytest

from cod_jax.errors import UserError
from cod_jax.launch.run_queue import DONE_FILE, is_done, run_queue


def test_points_run_and_finished_ones_are_left_out(sweep_folder, capsys):
    runs = sweep_folder.runs("hyper.sweep(RATE, [0.1, 0.5, 0.2])")
    assert run_queue(runs, 1) == 1
    printed = capsys.readouterr()
    assert sweep_folder.calls() == {"learning_rate=0.1": 1, "learning_rate=0.5": 1, "learning_rate=0.2": 1}
    assert "2 of 3 points are done, 1 failed" in printed.out
    assert printed.err == "learning_rate=0.5: failed with exit code 1: trainer: error: no luck\n"
    output = sweep_folder.workdir / "learning_rate=0.5" / "output.log"
    assert output.read_text() == "some output\ntrainer: error: no luck\n"

    assert run_queue(runs, 1) == 1
    assert sweep_folder.calls() == {"learning_rate=0.1": 1, "learning_rate=0.5": 2, "learning_rate=0.2": 1}
    assert "[1/3] learning_rate=0.1: done before" in capsys.readouterr().out
    assert [is_done(run) for run in runs] == [True, False, True]


def test_done_means_the_same_arguments_and_settings(sweep_folder):
    text = sweep_folder.config.read_text().replace("    return", "    config.seed = 0\n    return")
    sweep_folder.config.write_text(text)

    def times_run(*extra):
        assert run_queue(sweep_folder.runs("hyper.sweep(RATE, [0.1])", *extra), 1) == 0
        return sum(sweep_folder.calls().values())

    assert [times_run(), times_run()] == [1, 1]
    longer = "--config.total_steps=2000"
    assert [times_run(longer), times_run(longer)] == [2, 2]
    sweep_folder.config.write_text(text.replace("seed = 0", "seed = 1"))
    assert [times_run(longer), times_run(longer)] == [3, 3]
    (sweep_folder.workdir / "learning_rate=0.1" / DONE_FILE).write_text("{")
    assert times_run(longer) == 4


def test_a_run_that_left_early_is_not_done(sweep_folder, capsys):
    (run,) = sweep_folder.runs("hyper.sweep(RATE, [0.25])")
    assert run_queue([run], 1) == 1
    assert "ended before step 1000 as if told to stop" in capsys.readouterr().err
    assert not is_done(run)


def test_a_trainer_that_cannot_be_started_is_a_failure(sweep_folder, capsys):
    sweep_folder.workdir.mkdir()
    (sweep_folder.workdir / "learning_rate=0.1").write_text("in the way")
    assert run_queue(sweep_folder.runs("hyper.sweep(RATE, [0.1, 0.2])"), 1) == 1
    assert "learning_rate=0.1: cannot be started" in capsys.readouterr().err
    assert sweep_folder.calls() == {"learning_rate=0.2": 1}


def test_a_run_that_cannot_be_marked_as_done_does_not_end_the_queue(sweep_folder, capsys):
    runs = sweep_folder.runs("hyper.sweep(RATE, [0.1, 0.2])")
    (runs[0].workdir / DONE_FILE).mkdir(parents=True)
    assert run_queue(runs, 1) == 1
    assert "learning_rate=0.1: finished but cannot be marked as done" in capsys.readouterr().err
    assert is_done(runs[1])


def test_as_many_as_asked_run_at_a_time_each_on_its_own_gpus(sweep_folder, monkeypatch):
    monkeypatch.setenv("TRAINER_SECONDS", "0.5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert run_queue(sweep_folder.runs("hyper.sweep(RATE, [0.1, 0.2, 0.3, 0.4])"), 2, 2) == 0
    times = sweep_folder.workdir.glob("*/times.txt")
    spans = [tuple(map(float, path.read_text().split())) for path in times]
    together = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert max(together) == 2
    assert sweep_folder.gpus() == ["0,1", "0,1", "2,3", "2,3"]


def test_points_share_the_gpus_that_the_queue_may_use(sweep_folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    runs = sweep_folder.runs("hyper.sweep(RATE, [0.1, 0.2])")
    with pytest.raises(UserError, match="4 GPUs are needed, but CUDA_VISIBLE_DEVICES=5,7 names 2"):
        run_queue(runs, 9, 2)
    assert not sweep_folder.calls()
    assert run_queue(runs, 9, 1) == 0
    assert sweep_folder.gpus() == ["5", "7"]


@pytest.mark.parametrize(("rate", "saved"), [(2, True), (3, False)])
def test_being_told_to_stop_lets_trainers_save_and_starts_no_more(sweep_folder, capsys, rate, saved):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert run_queue(sweep_folder.runs(f"hyper.sweep(RATE, [0.1, {rate}, 0.2])"), 1) == 128 + signal.SIGTERM
    assert sweep_folder.calls() == {"learning_rate=0.1": 1, f"learning_rate={rate}": 1}
    assert (sweep_folder.workdir / f"learning_rate={rate}" / "saved").exists() == saved
    assert "1 of 3 points are done, 0 failed" in capsys.readouterr().out
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
