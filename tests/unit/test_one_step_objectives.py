import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.codec import from_bundle
from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.features.lpips import Stage
from cod_jax.models import FactorizedConfig, flatten_params
from cod_jax.models.bottlenecks import CodebookTraining, FactorizedTraining
from cod_jax.models.discriminator import DINOv2DiscriminatorConfig, PatchDiscriminatorConfig
from cod_jax.training.objectives.distill import Distill, DistillConfig
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.one_step import OneStep, OneStepConfig
from cod_jax.training.objectives.reconstruction import ReconstructionConfig
from cod_jax.training.optimizer import AdamWConfig, EmaConfig
from cod_jax.training.state import TrainState, init_state, state_axes
from cod_jax.training.step import make_update
from tests.model_fixtures import (
    numpy_params,
    tiny_bundle,
    tiny_codec,
    tiny_latent_config,
    tiny_model_config,
    tiny_pixel_config,
)

TRUNK = (Stage((4,)),)
NETWORKS = FrozenNetworks(
    dinov2=DINOv2Config(patch_size=2, width=12, num_blocks=2, num_heads=2, mlp_width=16, table_side=3),
    lpips={"lpips_vgg": TRUNK, "lpips_alex": TRUNK},
)
PLAIN = ReconstructionConfig(
    lpips_vgg_weight=0.0, lpips_alex_weight=0.0, structural_weight=1.0, feature_alignment_weight=0.0
)
PUBLISHED = ReconstructionConfig(alignment_block=1)
PATCH = PatchDiscriminatorConfig(widths=(4, 8))


def one_step(**fields) -> OneStep:
    config = OneStepConfig(**{"reconstruction": PLAIN, "lora_rank": 2, "lora_alpha": 2.0, **fields})
    return OneStep(config, ObjectiveContext(tiny_model_config(), networks=NETWORKS))


def distill(**fields) -> Distill:
    config = DistillConfig(**{"reconstruction": PLAIN, "critic_updates": 2, "discriminator": PATCH, **fields})
    return Distill(config, ObjectiveContext(tiny_model_config(), networks=NETWORKS), tiny_pixel_config())


def start(objective) -> tuple[TrainState, dict, dict]:
    """A state without compilation, the optimizers, and frozen networks."""
    optimizers = {update.name: AdamWConfig().build() for update in objective.updates}
    shapes = jax.eval_shape(lambda: init_state(objective, optimizers, jax.random.key(0)))
    checked = jax.tree.map(lambda leaf, axes: len(axes) in (0, leaf.ndim), shapes, state_axes(objective, optimizers))
    assert all(jax.tree.leaves(checked))
    params = jax.tree.map(jnp.asarray, numpy_params(shapes.params))
    if "lora" in params:
        params["lora"] = {n: {**part, "b": jnp.zeros_like(part["b"])} for n, part in params["lora"].items()}
    networks = {name: network.shapes for name, network in objective.frozen.items()}
    frozen = jax.tree.map(jnp.asarray, numpy_params(networks, seed=3))
    params |= objective.parts_from(frozen)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    state = dataclasses.replace(
        zeros,
        params=params,
        ema={part: params[part] for part in objective.averaged},
        buffers=objective.init_buffers(params, jax.random.key(5)),
        key=jax.random.key_data(jax.random.key(1)),
    )
    return state, optimizers, frozen


def run(objective, state, optimizers, frozen, images, number=0, parts=1, ema_warmup=False):
    update = objective.updates[number]
    rate = optax.constant_schedule(1e-2)
    step = make_update(objective, update, optimizers[update.name], rate, EmaConfig(0.9, ema_warmup), parts)
    return jax.jit(step)(state, frozen, {"image": images})


def changed(before: dict, after: dict) -> set[str]:
    before, after = flatten_params(before), flatten_params(after)
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.randint(jax.random.key(2), (4, 32, 32, 3), 0, 256).astype(jnp.uint8)


@pytest.mark.slow
def test_the_first_stage_moves_codec_depthwise_convolutions_and_adaptations_only(images):
    objective = one_step()
    state, optimizers, frozen = start(objective)
    after, metrics = run(objective, state, optimizers, frozen, images)
    moved = changed(state.params, after.params)
    assert set(metrics) >= {"loss", "loss/l1", "loss/structural", "loss/commitment", "codebook/perplexity"}
    in_full = {name for name in moved if name.startswith("model/")}
    assert in_full == {
        name for name in flatten_params(state.params) if name.startswith("model/codec/") or "/depthwise/" in name
    }
    adaptations = moved - in_full
    # Of a product with zero only that factor has a gradient; the noise is zero, so its embedding has none.
    embedding = "lora/denoiser/patch_embed/kernel/b"
    assert adaptations == {name for name in flatten_params(state.params) if name.endswith("/b")} - {embedding}
    assert not any("head/condition" in name for name in adaptations)
    assert set(after.optimizer["model"][1].mu) == set(objective.updates[0].trains)
    kept = changed(state.ema, after.ema)
    assert kept == moved


def test_adaptations_start_as_nothing_and_are_merged_when_exported():
    objective = one_step(lora_alpha=6.0, adapt_pixel_condition=True)
    state, _, _ = start(objective)
    params = state.params
    assert changed(params["model"], objective.exported(params)) == set()
    name = "denoiser/head/condition/kernel"
    lora = params["lora"][name]
    params["lora"][name] = {"a": lora["a"], "b": jnp.ones_like(lora["b"])}
    exported = objective.exported(params)
    assert changed(params["model"], exported) == {name}
    x = jax.random.normal(jax.random.key(0), (5, lora["a"].shape[0]))
    kernel, merged = (flatten_params(tree)[name] for tree in (params["model"], exported))
    unmerged = x @ kernel + 3.0 * (x @ lora["a"]) @ params["lora"][name]["b"]
    np.testing.assert_allclose(x @ merged, unmerged, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_fresh_codes_come_from_data_in_the_first_stage(images):
    objective = one_step(bottleneck=CodebookTraining(revive_codes_every=10))
    state, optimizers, frozen = start(objective)
    after, _ = run(objective, state, optimizers, frozen, images)
    model = objective.functional.bind(objective.exported(state.params))
    latents = np.asarray(model.codec.encode(images.astype(jnp.float32) / 255)).reshape(-1, 8)
    codes = np.asarray(after.params["model"]["codec"]["bottleneck"]["codebook"])
    assert np.abs(codes[:, None] - latents[None]).max(axis=-1).min(axis=1).max() < 1e-4


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
    # It is the student's first step, whatever the critic has done, so that a tenth of the average stays.
    name = "model/codec/decoder/conv_in/bias"
    before, trained, average = (flatten_params(tree)[name] for tree in (after.ema, later.params, later.ema))
    np.testing.assert_allclose(average, before + 0.9 * (trained - before), rtol=1e-5)


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


def test_training_attends_as_the_codec_in_use_does():
    bundle = tiny_bundle(pitch=4, attention="window_masked")
    objective = OneStep(OneStepConfig(reconstruction=PLAIN), ObjectiveContext(bundle.config))
    # More symbols than a window has in a row.
    image_uint8 = np.random.default_rng(0).integers(0, 256, (16, 4 * 40, 3), np.uint8)
    image01 = image_uint8[None].astype(np.float32) / 255
    reconstructed = jax.jit(objective.reconstruction)(jax.tree.map(jnp.asarray, bundle.params), image01)
    np.testing.assert_array_equal(reconstructed.quantized.symbols[0], from_bundle(bundle).encode(image_uint8))
    everywhere = tiny_codec(pitch=4, attention="global").encode(image_uint8)
    assert not np.array_equal(reconstructed.quantized.symbols[0, ..., 0], everywhere)


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


def test_published_losses_need_their_networks():
    stage1 = one_step(reconstruction=PUBLISHED)
    assert set(stage1.frozen) == set(stage1.config.frozen_names) == {"dinov2", "lpips_vgg", "lpips_alex"}
    assert stage1.config.frozen_names == ("dinov2", "lpips_vgg", "lpips_alex")
    assert one_step().config.frozen_names == ()
    stage2 = distill(reconstruction=PLAIN, discriminator=DINOv2DiscriminatorConfig(layers=(0, 1)))
    assert stage2.config.frozen_names == ("dinov2",)
    assert set(stage2.frozen) == {"dinov2", "teacher"}


@pytest.mark.slow
def test_published_losses_train_the_alignment_head_too(images):
    stage1 = one_step(reconstruction=PUBLISHED)
    state, optimizers, frozen = start(stage1)
    after, metrics = run(stage1, state, optimizers, frozen, images)
    for term in ("l1", "lpips_vgg", "lpips_alex", "feature_alignment", "commitment"):
        assert np.isfinite(metrics[f"loss/{term}"]), term
    assert "heads/feature_alignment/out/kernel" in changed(state.params, after.params)


@pytest.mark.parametrize("num_levels", [1, 2])
def test_a_factorized_bottleneck_pays_for_its_bits_in_both_stages(images, num_levels):
    model = tiny_model_config(bottleneck=FactorizedConfig(num_levels=num_levels))
    training = FactorizedTraining(rate_weights=(2.0, 0.5)[:num_levels])
    first = OneStep(
        OneStepConfig(reconstruction=PLAIN, lora_rank=2, bottleneck=training),
        ObjectiveContext(model, networks=NETWORKS),
    )
    config = DistillConfig(reconstruction=PLAIN, discriminator=PATCH, bottleneck=training)
    second = Distill(config, ObjectiveContext(model, networks=NETWORKS), tiny_pixel_config())
    for objective in (first, second):
        state, _, frozen = start(objective)
        draws = objective.draw(jax.random.key(0), images.shape)
        update = objective.updates[0]
        _, output = jax.eval_shape(update.loss, state.params, state.buffers, frozen, images, draws)
        assert "rate" in output.terms
        assert "commitment" not in output.terms
        assert set(output.statistics) == {"bits", "pixels"}
        assert "codebook_usage" not in state.buffers
    assert not any(name.startswith("model/codec/bottleneck/") for name in second.updates[0].trains)
    assert any(name.startswith("model/codec/bottleneck/") for name in first.updates[0].trains)
    if num_levels == 2:
        single = OneStepConfig(reconstruction=PLAIN, bottleneck=FactorizedTraining())
        with pytest.raises(ValueError, match="one lambda for each of the 2 quality levels"):
            OneStep(single, ObjectiveContext(model, networks=NETWORKS))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="needs a denoiser on pixels, got kind ddt, which works on latents"):
        OneStep(OneStepConfig(reconstruction=PLAIN), ObjectiveContext(tiny_latent_config(), networks=NETWORKS))
    with pytest.raises(ValueError, match=r"objective\.teacher must be a model on pixels, got one on latents"):
        Distill(
            DistillConfig(reconstruction=PLAIN, discriminator=PATCH),
            ObjectiveContext(tiny_model_config(), networks=NETWORKS),
            tiny_latent_config(),
        )
    with pytest.raises(ValueError, match=r"alignment_block must be at most 2, .* got 3"):
        one_step(reconstruction=dataclasses.replace(PUBLISHED, alignment_block=3))
    refused: tuple[tuple[Any, dict[str, Any], str], ...] = (
        (OneStepConfig, {"lora_rank": 0}, "lora_rank must be at least 1, got 0"),
        (CodebookTraining, {"revive_usage": -1.0}, "revive_usage must be at least 0, got -1.0"),
        (DistillConfig, {"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
        (DistillConfig, {"adversarial_weight": -1.0}, "adversarial_weight must be at least 0, got -1.0"),
        (DistillConfig, {"time_shift": 0.0}, "time_shift must be positive, got 0.0"),
        (ReconstructionConfig, {"l1_weight": -1.0}, "l1_weight must be at least 0, got -1.0"),
    )
    for config, fields, message in refused:
        with pytest.raises(ValueError, match=message):
            config(**fields)
