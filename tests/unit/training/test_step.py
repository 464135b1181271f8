"""The update step: accumulation, randomness, averages, and steps that are not finite."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.models import CodebookConfig
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from cod_jax.training.optimizer import AdamWConfig, EmaConfig
from cod_jax.training.step import make_update
from tests.model_fixtures import tiny_compact_config
from tests.objective_fixtures import start


def codebook_of(params: dict) -> jax.Array:
    return params["model"]["codec"]["bottleneck"]["codebook"]


def with_codebook(params: dict, codebook: jax.Array) -> dict:
    model = params["model"]
    return {**params, "model": {**model, "codec": {**model["codec"], "bottleneck": {"codebook": codebook}}}}


@pytest.fixture(scope="module")
def objective() -> Pretrain:
    config = PretrainConfig(null_condition_probability=0.5, one_step_fraction=0.25)
    model = tiny_compact_config()
    codec: Any = model.codec
    codec = dataclasses.replace(codec, bottleneck=CodebookConfig(bits=3))
    return Pretrain(config, ObjectiveContext(dataclasses.replace(model, codec=codec)))


@pytest.fixture(scope="module")
def updates(objective):
    """Return the compiled update by the number of parts of a batch."""
    update, optimizer, rate = objective.updates[0], AdamWConfig().build(), optax.constant_schedule(1e-3)
    return {parts: jax.jit(make_update(objective, update, optimizer, rate, EmaConfig(0.9), parts)) for parts in (1, 2)}


@pytest.mark.slow
def test_accumulated_parts_give_the_update_of_the_whole_batch(objective, images, updates):
    state, _, _ = start(objective)
    whole_state, whole = updates[1](state, {}, {"image": images})
    parts_state, parts = updates[2](state, {}, {"image": images})
    for name in ("loss", "loss/flow", "loss/reconstruction", "loss/commitment", "gradient_norm"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(parts["codebook/perplexity"], whole["codebook/perplexity"], rtol=1e-5)
    assert whole_state.step == parts_state.step == 1


def test_a_step_that_is_not_finite_changes_the_counters_only(objective, images, updates):
    state, _, _ = start(objective)
    broken = with_codebook(state.params, codebook_of(state.params).at[0, 0].set(jnp.nan))
    state = dataclasses.replace(state, params=broken, ema=broken)
    after, metrics = updates[1](state, {}, {"image": images})
    assert not np.isfinite(metrics["loss"])
    for name in ("params", "ema", "optimizer", "buffers"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
    assert (after.step, after.skipped, after.consecutive_skipped["model"]) == (1, 1, 1)
    after, _ = updates[1](after, {}, {"image": images})
    assert (after.step, after.skipped, after.consecutive_skipped["model"]) == (2, 2, 2)
    healed = start(objective)[0].params
    after, _ = updates[1](dataclasses.replace(after, params=healed, ema=healed), {}, {"image": images})
    assert (after.step, after.skipped, after.consecutive_skipped["model"]) == (3, 2, 0)


def test_randomness_follows_the_step_and_nothing_else(objective, images, updates):
    state, _, _ = start(objective)
    _, first = updates[1](state, {}, {"image": images})
    _, again = updates[1](state, {}, {"image": images})
    _, other = updates[1](dataclasses.replace(state, step=jnp.int32(7)), {}, {"image": images})
    assert first["loss"] == again["loss"]
    assert first["loss"] != other["loss"]


def test_moving_average_follows_the_parameters(objective, images, updates):
    state, _, _ = start(objective)
    after, _ = updates[1](state, {}, {"image": images})
    before, moved, average = (codebook_of(s) for s in (state.params, after.params, after.ema))
    assert not np.array_equal(before, moved)
    np.testing.assert_allclose(average, 0.9 * before + 0.1 * moved, rtol=1e-6)
