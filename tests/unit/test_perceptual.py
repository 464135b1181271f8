"""The perceptual loss for other projects: pure functions whose gradients are those of distribution matching."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import Bundle
from cod_jax.models import build_model
from cod_jax.perceptual import CoDLoss
from tests.model_fixtures import numpy_params, tiny_compact_config, tiny_latent_config

KEY = jax.random.key(3)
IMAGE = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
OUTPUT = 0.5 * IMAGE


def _bundle(config: Any) -> Bundle:
    return Bundle(config, numpy_params(build_model(config).shapes), "0" * 64, "float32", {})


@pytest.fixture(scope="module")
def teacher() -> Bundle:
    return _bundle(tiny_compact_config())


@pytest.mark.slow
def test_nothing_pulls_before_the_critic_has_learned(teacher: Bundle):
    loss = CoDLoss(teacher, guidance_scale=1.0, optimizer=optax.sgd(1e-2))
    state = loss.init()
    gradient = jax.jit(jax.grad(loss, argnums=2))
    assert np.abs(gradient(state, KEY, OUTPUT, IMAGE)).max() == 0
    update = jax.jit(loss.update)
    losses = []
    for _ in range(5):
        state, value = update(state, KEY, OUTPUT, IMAGE)
        losses.append(float(value))
    # The critic learns the output, and only the critic.
    assert losses == sorted(losses, reverse=True)
    jax.tree.map(np.testing.assert_array_equal, state.teacher, loss.init().teacher)
    pull = np.asarray(gradient(state, KEY, OUTPUT, IMAGE))
    assert np.abs(pull).max() > 0
    # At every number of an image the gradient is 2 g / size, with g the difference over the mean distance.
    assert np.abs(pull).mean() < 2 / pull.size


@pytest.mark.slow
def test_a_step_against_the_gradient_leads_from_the_critic_to_the_teacher(teacher: Bundle):
    """With a critic that expects darker pictures than the teacher, the output becomes brighter."""
    loss = CoDLoss(teacher, guidance_scale=1.0)
    state = loss.init()
    darker = jax.tree.map(jnp.copy, state.critic)
    darker["project"]["bias"] = darker["project"]["bias"] - 0.2
    gradient = jax.grad(loss, argnums=2)(state._replace(critic=darker), KEY, OUTPUT, IMAGE)
    assert (gradient.mean(axis=(1, 2, 3)) < 0).all()


@pytest.mark.slow
def test_guidance_changes_the_teacher(teacher: Bundle):
    found = [jax.grad(CoDLoss(teacher, guidance_scale=scale), argnums=2) for scale in (1.0, 3.0)]
    plain, guided = (gradient(CoDLoss(teacher).init(), KEY, OUTPUT, IMAGE) for gradient in found)
    assert np.abs(plain - guided).max() > 0


def test_what_cannot_work_is_refused(teacher: Bundle):
    with pytest.raises(UserError, match="works on pixels, got one on latents"):
        CoDLoss(dataclasses.replace(teacher, config=tiny_latent_config()))
    with pytest.raises(UserError, match="guidance_scale from 0 to 1000, got -1"):
        CoDLoss(teacher, guidance_scale=-1.0)
    with pytest.raises(UserError, match="the teacher must be a diffusion model, got a one-step codec, which has not"):
        CoDLoss(dataclasses.replace(teacher, training={"config": {"objective": {"kind": "distill"}}}))
    with pytest.raises(UserError, match="positive time_shift, got 0"):
        CoDLoss(teacher, time_shift=0.0)
    loss = CoDLoss(teacher, guidance_scale=1.0)
    with pytest.raises(UserError, match=r"multiples of 16, got \[2, 32, 30, 3\]"):
        loss(loss.init(), KEY, OUTPUT[:, :, :30], IMAGE[:, :, :30])
    with pytest.raises(UserError, match="nowhere"):
        CoDLoss.load("nowhere")


def test_the_included_model_is_taken_without_guidance_only():
    with pytest.raises(UserError, match=r"expected guidance_scale 1 of the teacher, which .*, got 3; set guidance"):
        CoDLoss.load("compact")
    CoDLoss.load("compact", guidance_scale=1.0)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_a_state_can_be_donated(teacher: Bundle, convert: Any):
    given = dataclasses.replace(teacher, params=jax.tree.map(convert, teacher.params))
    states = [CoDLoss(given).init() for _ in range(2)]
    leaves = [leaf for leaf in jax.tree.leaves((given.params, states)) if isinstance(leaf, jax.Array)]
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
