import jax
import pytest

from cod_jax.training.profile import Profile


@pytest.mark.parametrize(
    ("steps", "begun", "traced"), [((3, 4), 1, [3, 4]), ((1, 2), 2, [2]), ((4, 9), 1, [4, 5]), (None, 1, [])]
)
def test_the_steps_that_are_asked_for_are_traced_and_no_others(monkeypatch, tmp_path, steps, begun, traced):
    events = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: events.append(f"start in {folder.name}"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))
    profile = Profile(tmp_path, steps, range(begun, 6), lambda: events.append("settled"))
    for step in range(begun, 6):
        with profile.step(step):
            events.append(step)
    profile.close()
    if traced:
        begin = events.index(f"start in {tmp_path.name}")
        assert events[begin - 1] == "settled"  # what was queued before is not in the trace
        end = events.index("stop")
        assert [event for event in events[begin:end] if isinstance(event, int)] == traced
        assert events[end - 1] == ("settled" if traced[-1] == steps[1] else 5)
    else:
        assert events == [1, 2, 3, 4, 5]
    assert Profile(None, (1, 5), range(1, 6), lambda: None)._folder is None


@pytest.mark.parametrize(
    ("steps", "is_first", "warned"),
    [
        ((2000, 2010), True, True),
        ((1, 10), True, True),
        ((1, 11), True, False),
        ((1000, 2000), True, False),
        ((2000, 2010), False, False),
        (None, True, False),
    ],
)
def test_steps_that_the_run_does_not_take_are_told(tmp_path, caplog, steps, is_first: bool, warned: bool):
    Profile(tmp_path if is_first else None, steps, range(11, 1001), lambda: None)
    assert ("expected steps to trace among 11 to 1000, which this run takes, got" in caplog.text) == warned
