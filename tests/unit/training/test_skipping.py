import math

import numpy as np
import pytest

from cod_jax.training.objectives.objective import Update
from cod_jax.training.optimizer import AdamWConfig
from cod_jax.training.skipping import SkippedSteps


def metrics(in_a_row: int, gradient_norm: float = 1.0) -> dict[str, np.ndarray]:
    loss = math.nan if in_a_row else 1.0
    values = {"loss": loss, "loss/flow": loss, "gradient_norm": gradient_norm, "consecutive_skipped": in_a_row}
    return {name: np.array(value, np.float32) for name, value in values.items()}


def update(name: str, settings: str = "optimizer") -> Update:
    def loss(*_):
        raise AssertionError("nothing is computed")

    return Update(name, (), loss, AdamWConfig(), settings)


def test_the_limit_holds_at_its_step_and_the_error_names_the_terms():
    model = update("model")
    skipped = SkippedSteps([model], 3)
    goes_on = [skipped.look(step, model, metrics(row, math.inf)) for step, row in enumerate([0, 1, 2, 3], 1)]
    assert goes_on == [True, True, True, False]
    assert str(skipped.error("the same command resumes after step 5")) == (
        "stopped at step 4: 3 steps in a row had no finite gradients and were skipped (loss is nan, loss/flow is nan, "
        "gradient_norm is inf); lower optimizer.learning_rate, set optimizer.gradient_clip, or check the images; "
        "the same command resumes after step 5"
    )


def test_parameters_that_no_finite_gradient_followed_are_no_place_to_go_back_to():
    model = update("model")
    skipped = SkippedSteps([model], 20)
    for step, row in enumerate([0, 1, 0, 0, 1, 2], 1):
        skipped.look(step, model, metrics(row))
    assert skipped.skipping
    assert skipped.last_good == 3  # step 4 left the parameters with which step 5 failed
    skipped.look(7, model, metrics(0))
    assert not skipped.skipping


def test_each_kind_of_step_counts_for_itself():
    student, critic = update("student"), update("critic", "objective.critic_optimizer")
    skipped = SkippedSteps([student, critic], 2)
    assert skipped.look(1, critic, metrics(1))
    assert skipped.look(2, student, metrics(0))
    assert skipped.skipping  # the critic has not recovered
    last = {f"critic/{name}" if "skipped" not in name else name: value for name, value in metrics(2).items()}
    assert not skipped.look(3, critic, last)
    with pytest.raises(ValueError, match=r"critic/loss is nan.*; lower objective\.critic_optimizer\.learning_rate"):
        raise skipped.error("")
