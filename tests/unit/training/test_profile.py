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
    profile = Profile(tmp_path, steps, settle=lambda: events.append("settled"))
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
    assert Profile(None, (1, 5), settle=lambda: None)._folder is None
