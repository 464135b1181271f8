"""First stage of the one-step codec."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.codec import from_bundle
from cod_jax.models import flatten_params
from cod_jax.models.bottlenecks import CodebookTraining, Draws, FactorizedTraining, Quantized
from cod_jax.models.discriminator import DINOv2DiscriminatorConfig
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.one_step import OneStep, OneStepConfig
from cod_jax.training.objectives.reconstruction import Reconstructed, ReconstructionConfig
from tests.model_fixtures import (
    tiny_bundle,
    tiny_codec,
    tiny_compact_config,
    tiny_latent_config,
)
from tests.objective_fixtures import NETWORKS, PLAIN, PUBLISHED, changed, distill, one_step, run, start

# To be replaced by the losses that a test is about.
NOTHING = dataclasses.replace(PLAIN, l1_weight=0.0, structural_weight=0.0)


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
    params, merge = state.params, jax.jit(objective.exported)
    assert changed(params["model"], merge(params)) == set()
    name = "denoiser/head/condition/kernel"
    lora = params["lora"][name]
    params["lora"][name] = {"a": lora["a"], "b": jnp.ones_like(lora["b"])}
    exported = merge(params)
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


@pytest.mark.slow
def test_without_adaptations_a_fresh_model_is_trained_whole(images):
    config = OneStepConfig(
        reconstruction=dataclasses.replace(NOTHING, squared_error_weight=1.0),
        lora_rank=0,
        bottleneck=FactorizedTraining(rate_weights=(0.1, 0.02), level_balance=0.5),
    )
    objective = OneStep(config, ObjectiveContext(tiny_compact_config(num_levels=2)))
    assert not config.starts_from_model
    state, optimizers, frozen = start(objective)
    assert set(state.params) == {"model"}
    after, metrics = run(objective, state, optimizers, frozen, images)
    assert {"loss/squared_error", "loss/rate"} <= set(metrics)
    # Without noise to see, its embedding has no gradient.
    names = set(flatten_params(state.params))
    assert changed(state.params, after.params) == names - {"model/denoiser/patch_embed/kernel"}
    assert changed(objective.exported(after.params), after.params["model"]) == set()


def test_losses_weigh_pictures_by_the_importance_of_their_level():
    training = FactorizedTraining(rate_weights=(1.0, 0.25), level_balance=0.5)
    config = OneStepConfig(
        reconstruction=dataclasses.replace(NOTHING, squared_error_weight=1.0, l1_weight=1.0),
        lora_rank=0,
        bottleneck=training,
    )
    objective = OneStep(config, ObjectiveContext(tiny_compact_config(num_levels=2)))
    image01 = jnp.stack([jnp.zeros((16, 16, 3)), jnp.ones((16, 16, 3))])
    empty = jnp.zeros((2, 1, 1, 24))
    quantized = Quantized(empty, jnp.zeros(empty.shape, jnp.int32), jnp.zeros(2), {})
    other = 2 * image01 - 1 + jnp.array([0.5, 0.1])[:, None, None, None]
    reconstructed = Reconstructed(other, empty, quantized, Draws(jnp.array([0, 1])), None)
    terms = objective.reconstruction.terms({}, {}, image01, reconstructed)
    assert float(terms["squared_error"]) == pytest.approx((0.25 / 1.5 + 0.01 * 2 / 1.5) / 2, rel=1e-4)
    assert float(terms["l1"]) == pytest.approx((0.5 / 1.5 + 0.1 * 2 / 1.5) / 2, rel=1e-4)


@pytest.mark.slow
def test_training_attends_as_the_codec_in_use_does():
    bundle = tiny_bundle(pitch=4, attention="window_masked")
    objective = OneStep(OneStepConfig(reconstruction=PLAIN), ObjectiveContext(bundle.config))
    # More symbols than a window has in a row.
    image_uint8 = np.random.default_rng(0).integers(0, 256, (16, 4 * 40, 3), np.uint8)
    image01 = image_uint8[None].astype(np.float32) / 255
    reconstructed = jax.jit(objective.reconstruction)(jax.tree.map(jnp.asarray, bundle.params), image01)
    np.testing.assert_array_equal(reconstructed.quantized.symbols[0], from_bundle(bundle).encode(image_uint8))
    everywhere = tiny_codec(pitch=4, attention="global").encode(image_uint8)
    assert not np.array_equal(reconstructed.quantized.symbols[0], everywhere)


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


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs a denoiser on pixels, got kind ddt, which works on latents"):
        OneStep(OneStepConfig(reconstruction=PLAIN), ObjectiveContext(tiny_latent_config(), networks=NETWORKS))
    with pytest.raises(ValueError, match=r"alignment_block must be at most 2, .* got 3"):
        one_step(reconstruction=dataclasses.replace(PUBLISHED, alignment_block=3))
    with pytest.raises(ValueError, match="lora_rank must be at least 0, got -1"):
        OneStepConfig(lora_rank=-1)
    with pytest.raises(ValueError, match=r"l1_weight must be at least 0, got -1\.0"):
        ReconstructionConfig(l1_weight=-1.0)
