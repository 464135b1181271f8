"""Pre-training, with small frozen networks in the place of the published."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.features.sd_vae import LATENT_SCALE, SDVAEConfig
from cod_jax.losses.similarity import ms_ssim_per_image
from cod_jax.models import DDTConfig
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from tests.model_fixtures import numpy_params, tiny_model_config
from tests.objective_fixtures import run, start

NETWORKS = FrozenNetworks(
    dinov2=DINOv2Config(width=12, num_blocks=2, num_heads=2, mlp_width=24, table_side=3),
    vae=SDVAEConfig(widths=(4, 4, 4, 4), encoder_blocks=1, num_groups=2),
)


ALIGNED = PretrainConfig(feature_alignment_weight=0.5, condition_alignment_weight=0.5, alignment_block=1)


def latent_objective(config: PretrainConfig = ALIGNED) -> Pretrain:
    denoiser = DDTConfig(hidden=16, num_heads=2, num_blocks=2, num_decoder_blocks=1)
    model = dataclasses.replace(tiny_model_config(), denoiser=denoiser)
    return Pretrain(config, ObjectiveContext(model, networks=NETWORKS))


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.randint(jax.random.key(2), (2, 32, 32, 3), 0, 256).astype(jnp.uint8)


@pytest.fixture(scope="module")
def frozen() -> dict:
    shapes = {name: network.shapes for name, network in latent_objective().frozen.items()}
    return jax.tree.map(jnp.asarray, numpy_params(shapes, seed=3))


@pytest.mark.slow
def test_a_step_with_all_terms_moves_the_model_and_its_heads(images, frozen):
    objective = latent_objective()
    assert set(frozen) == {"autoencoder", "dinov2"}
    assert set(objective.heads) == {"reconstruction", "feature_alignment", "condition_alignment"}
    state, optimizers, _ = start(objective)
    after, metrics = run(objective, state, optimizers, frozen, images, learning_rate=1e-3)
    for term in ("flow", "reconstruction", "commitment", "feature_alignment", "condition_alignment"):
        assert np.isfinite(metrics[f"loss/{term}"]), term
    assert 0 < metrics["loss/feature_alignment"] < 2
    for name in objective.heads:
        before, moved = (tree.params["heads"][name]["out"]["kernel"] for tree in (state, after))
        assert not np.array_equal(before, moved), name


def test_latents_are_samples_whose_mean_is_the_autoencoders(images, frozen):
    objective = latent_objective()
    draws = objective.draw(jax.random.key(0), images.shape)
    assert draws.autoencoder_noise is not None
    assert draws.noise.shape == draws.autoencoder_noise.shape == (2, 4, 4, 4)
    prepare = jax.jit(objective.prepare)
    autoencoder = objective.space.functional
    assert autoencoder is not None
    encode = jax.jit(lambda params, image: autoencoder.bind(params).encode_moments(image))
    moments = encode(frozen["autoencoder"], images.astype(jnp.float32) / 127.5 - 1)
    still = prepare(frozen, images, draws._replace(autoencoder_noise=jnp.zeros_like(draws.noise)))
    np.testing.assert_allclose(still.values, moments.mean * LATENT_SCALE, rtol=1e-4, atol=1e-6)
    inputs = prepare(frozen, images, draws)
    noise = (inputs.values / LATENT_SCALE - moments.mean) / moments.std
    np.testing.assert_allclose(noise, draws.autoencoder_noise, atol=2e-2)
    assert inputs.tokens is not None
    assert inputs.tokens.shape == (2, 2, 2, 12)


def test_each_alignment_can_be_switched_off_and_then_needs_no_network():
    off = dataclasses.replace(ALIGNED, feature_alignment_weight=0.0)
    objective = Pretrain(off, ObjectiveContext(tiny_model_config(), networks=NETWORKS))
    assert set(objective.frozen) == {"dinov2"}
    assert set(objective.weights) == {"flow", "reconstruction", "commitment", "condition_alignment"}
    objective = Pretrain(PretrainConfig(), ObjectiveContext(tiny_model_config(), networks=NETWORKS))
    assert objective.frozen == {}
    assert set(objective.heads) == {"reconstruction"}


def test_an_alignment_block_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"alignment_block must be at most 2, .* got 8"):
        latent_objective(dataclasses.replace(ALIGNED, alignment_block=8))


@pytest.mark.slow
def test_extra_pass_at_zero_is_a_term_of_its_own(images):
    unified = Pretrain(
        PretrainConfig(one_step_weight=2.0, one_step_ms_ssim_weight=3.0, one_step_noise_level=0.0),
        ObjectiveContext(tiny_model_config()),
    )
    params = start(unified)[0].params
    draws = unified.draw(jax.random.key(0), images.shape)._replace(drop=jnp.ones((len(images),)))
    total, output = jax.jit(unified.loss)(params, {}, images, draws)
    model = unified.functional.bind(params["model"])
    image01 = images.astype(jnp.float32) / 255
    z_q = model.codec.quantize(model.codec.encode(image01)).values
    decoded = model.one_step(model.codec.decode(z_q))
    np.testing.assert_allclose(output.terms["one_step"], jnp.mean((decoded - (2 * image01 - 1)) ** 2), rtol=1e-4)
    terms = output.terms
    difference = 1 - jnp.mean(jnp.asarray(ms_ssim_per_image(decoded, 2 * image01 - 1)))
    np.testing.assert_allclose(terms["one_step_ms_ssim"], difference, rtol=1e-4)
    expected = terms["flow"] + terms["reconstruction"] + 0.25 * terms["commitment"] + 2 * terms["one_step"]
    np.testing.assert_allclose(total, expected + 3 * terms["one_step_ms_ssim"], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"null_condition_probability": 1.5}, r"null_condition_probability must be in \[0, 1\], got 1.5"),
        ({"one_step_weight": -1.0}, "one_step_weight must be at least 0, got -1.0"),
        ({"time_shift": 0.0}, "time_shift must be positive, got 0.0"),
        (
            {"one_step_ms_ssim_weight": 0.1},
            "one_step_weight must be above 0 with one_step_ms_ssim_weight, which concern",
        ),
    ],
)
def test_objective_refuses_unusable_values(fields, message):
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**fields)
