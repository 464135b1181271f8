"""Learning-rate schedules and the moving average's decay."""

import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.training.optimizer import AdamWConfig, EmaConfig


def test_average_warms_up_so_that_short_runs_forget_their_start():
    slow, warm = EmaConfig(0.9999), EmaConfig(0.9999, warmup=True)
    assert slow.decay_at(jnp.int32(0)) == pytest.approx(0.9999)
    assert warm.decay_at(jnp.int32(0)) == pytest.approx(0.1)
    assert warm.decay_at(jnp.int32(90)) == pytest.approx(0.91)
    assert warm.decay_at(jnp.int32(10**7)) == pytest.approx(0.9999)


def test_learning_rate_rises_then_falls():
    schedule = AdamWConfig(learning_rate=1e-3, warmup_steps=10, schedule="cosine").build_schedule(110)
    assert float(np.asarray(schedule(0))) == pytest.approx(1e-4)
    assert float(np.asarray(schedule(10))) == pytest.approx(1e-3)
    assert float(np.asarray(schedule(60))) == pytest.approx(0.5 * (1e-3 + 1e-5), rel=1e-3)
    assert float(np.asarray(schedule(110))) == pytest.approx(1e-5)
    assert float(np.asarray(AdamWConfig(learning_rate=2e-3).build_schedule(5)(4))) == pytest.approx(2e-3)
