import json

import pytest

from cod_jax.training.goodput import PHASES, STEPPING, WAITING, WallTime


class Clocks:
    """Both clocks of the system, moved by hand."""

    def __init__(self, monkeypatch):
        self.now = self.wall = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.time", lambda: self.wall)

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def clocks(monkeypatch) -> Clocks:
    return Clocks(monkeypatch)


def test_time_belongs_to_the_phase_it_is_spent_in(clocks):
    begun = []
    clock = WallTime(on_change=begun.append)
    clocks.pass_seconds(1)
    clock.begin(STEPPING)
    clocks.pass_seconds(2)
    with clock.phase(WAITING):
        clocks.pass_seconds(3)
    clocks.pass_seconds(4)
    assert clock.now() == dict.fromkeys(PHASES, 0.0) | {"starting": 1, STEPPING: 6, WAITING: 3}
    assert begun == [STEPPING, WAITING, STEPPING]
    assert clock.scalars()["goodput"] == 0.6
    assert clock.scalars()["waiting_for_data_seconds"] == 3
    assert clock.summary() == "time: 10 s in one start: 60.0 % stepping, 30.0 % waiting for data, 10.0 % starting"


def run(clocks, folder, resumed: int) -> WallTime:
    """A start of a run that saves steps 10 and 20, and is killed after step 25; a step takes a second."""
    clock = WallTime(folder)
    clock.resumed(resumed)
    clock.begin(STEPPING)
    for step in (10, 20):
        clocks.pass_seconds(10)
        clock.saved(step)
    clocks.pass_seconds(5)
    clock.write()
    return clock


def test_steps_after_the_checkpoint_that_a_run_resumes_from_are_lost(clocks, tmp_path):
    run(clocks, tmp_path, 0)
    clocks.pass_seconds(600)
    clock = WallTime(tmp_path)
    clock.resumed(20)
    assert (clock.now()[STEPPING], clock.now()["lost"]) == (20, 5)
    assert clock.num_starts == 2
    assert clock.between_seconds == 600
    clock = WallTime(tmp_path)
    clock.resumed(10)  # the checkpoint of step 20 is damaged
    assert (clock.now()[STEPPING], clock.now()["lost"]) == (10, 15)
    assert "25 s in 2 starts, 10 min between them" in clock.summary()


def test_a_start_that_is_killed_after_a_save_is_remembered(clocks, tmp_path):
    clock = WallTime(tmp_path)
    clock.begin(STEPPING)
    clocks.pass_seconds(10)
    clock.saved(10)
    clocks.pass_seconds(5)
    assert WallTime(tmp_path).num_starts == 2
    assert WallTime(tmp_path).now()[STEPPING] == 10


def test_times_that_cannot_be_written_are_told_once_and_end_nothing(clocks, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(28, "No space left on device")

    clock = WallTime(tmp_path)
    monkeypatch.setattr("cod_jax.files.write_bytes", fail)
    clock.write()
    clock.saved(10)
    assert [record.getMessage() for record in caplog.records] == [
        "times are not kept: [Errno 28] No space left on device"
    ]


def test_a_clock_that_is_set_back_and_a_damaged_file_do_no_harm(clocks, tmp_path):
    run(clocks, tmp_path, 0)
    clocks.wall -= 1e6
    assert WallTime(tmp_path).between_seconds == 0
    for text in ("", "[]", json.dumps({"written": 1, "seconds": None})):
        (tmp_path / "time.json").write_text(text)
        clock = WallTime(tmp_path)
        clock.resumed(5)
        assert clock.num_starts == 1
