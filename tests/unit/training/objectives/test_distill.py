"""Second stage of the one-step codec."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.models import flatten_params
from cod_jax.training.objectives.distill import Distill, DistillConfig
from cod_jax.training.objectives.objective import ObjectiveContext
from tests.model_fixtures import (
    tiny_latent_config,
    tiny_model_config,
)
from tests.objective_fixtures import NETWORKS, PATCH, PLAIN, changed, distill, run, start


@pytest.mark.slow
def test_the_student_and_its_judges_move_in_turns_and_apart(images):
    objective = distill()
    assert objective.schedule == (1, 1, 0)
    student, critic = objective.updates
    assert not set(student.trains) & set(critic.trains)
    state, optimizers, frozen = start(objective)

    after, metrics = run(objective, state, optimizers, frozen, images, 1)
    assert {name.split("/")[0] for name in changed(state.params, after.params)} == {"critic", "discriminator"}
    assert set(metrics) >= {"critic/loss", "critic/loss/flow", "critic/loss/discriminator", "critic/gradient_norm"}
    assert changed(state.buffers, after.buffers)
    assert not changed(state.ema, after.ema)
    assert not changed(state.optimizer["student"][1].mu, after.optimizer["student"][1].mu)

    after = dataclasses.replace(after, step=jnp.int32(2))
    later, metrics = run(objective, after, optimizers, frozen, images, 0, ema_warmup=True)
    moved = changed(after.params, later.params)
    assert {name.split("/")[0] for name in moved} == {"model"}
    assert not any(name.startswith(("model/codec/encoder/", "model/codec/bottleneck/")) for name in moved)
    assert any(name.startswith("model/codec/decoder/") for name in moved)
    assert changed(after.ema, later.ema) == moved
    assert set(metrics) >= {"student/loss/distribution_matching", "student/loss/adversarial", "student/loss/l1"}
    # The critic's steps do not count: this is the student's first step, so a tenth of the average stays.
    name = "model/codec/decoder/conv_in/bias"
    before, trained, average = (flatten_params(tree)[name] for tree in (after.ema, later.params, later.ema))
    np.testing.assert_allclose(average, before + 0.9 * (trained - before), rtol=1e-5)


@pytest.mark.slow
def test_student_and_discriminator_play_against_each_other(images):
    objective = distill()
    state, _, frozen = start(objective)
    params, buffers = state.params, state.buffers
    draws = objective.draw(jax.random.key(0), images.shape)

    @jax.jit
    def run_both(params):
        image01 = images.astype(jnp.float32) / 255
        reconstruction = objective.reconstruction(params["model"], image01).image
        real, fake = (
            objective.discriminator.logits(params["discriminator"], buffers["singular_vectors"], picture, {})
            for picture in (2 * image01 - 1, reconstruction)
        )
        both = (
            loss(params, buffers, frozen, images, draws) for loss in (objective.student_loss, objective.critic_loss)
        )
        return real, fake, *both

    real, fake, (student, student_output), (critic, critic_output) = run_both(params)
    hinge = 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))
    np.testing.assert_allclose(critic_output.terms["discriminator"], hinge, rtol=1e-5)
    np.testing.assert_allclose(student_output.terms["adversarial"], -jnp.mean(fake), rtol=1e-5)
    np.testing.assert_allclose(critic, critic_output.terms["flow"] + hinge, rtol=1e-5)
    weighted = sum(objective.weights[name] * term for name, term in student_output.terms.items())
    np.testing.assert_allclose(student, weighted, rtol=1e-5)
    assert objective.weights["adversarial"] == 0.01
    assert objective.weights["distribution_matching"] == 2.0


@pytest.mark.slow
def test_steps_without_finite_gradients_are_counted_per_update(images):
    objective = distill()
    state, optimizers, frozen = start(objective)
    state.params["discriminator"] = jax.tree.map(lambda x: x * jnp.nan, state.params["discriminator"])
    state = dataclasses.replace(state, consecutive_skipped={"student": jnp.int32(0), "critic": jnp.int32(6)})
    after, metrics = run(objective, state, optimizers, frozen, images, 1)
    assert (after.consecutive_skipped["student"], after.consecutive_skipped["critic"]) == (0, 7)
    assert metrics["consecutive_skipped"] == 7


@pytest.mark.slow
def test_a_critic_that_is_the_teacher_has_nothing_to_say(images):
    objective = distill(guidance_scale=1.0)
    state, _, frozen = start(objective)
    teacher, critic = objective._networks(state.params, frozen)
    image01 = images.astype(jnp.float32) / 255
    reconstruction = jnp.zeros_like(image01)
    draws = objective.draw(jax.random.key(0), images.shape)
    assert objective.distribution_matching(teacher, critic, image01, reconstruction, draws) == 0
    guided = distill(guidance_scale=3.0).distribution_matching(teacher, critic, image01, reconstruction, draws)
    assert guided > 0


@pytest.mark.slow
def test_accumulated_parts_give_the_updates_of_the_whole_batch(images):
    objective = distill()
    state, optimizers, frozen = start(objective)
    for number, lead in enumerate(("student", "critic")):
        _, whole = run(objective, state, optimizers, frozen, images, number)
        _, parts = run(objective, state, optimizers, frozen, images, number, parts=2)
        for name in (f"{lead}/loss", f"{lead}/gradient_norm"):
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, err_msg=name)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"objective\.teacher must be a model on pixels, got one on latents"):
        Distill(
            DistillConfig(reconstruction=PLAIN, discriminator=PATCH),
            ObjectiveContext(tiny_model_config(), networks=NETWORKS),
            tiny_latent_config(),
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
        ({"adversarial_weight": -1.0}, "adversarial_weight must be at least 0, got -1.0"),
        ({"time_shift": 0.0}, "time_shift must be positive, got 0.0"),
    ],
)
def test_unusable_values_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**fields)
