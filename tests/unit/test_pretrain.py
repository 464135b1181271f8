"""Pre-training with frozen networks, small ones in the place of the published."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.features.sd_vae import LATENT_SCALE, SDVAEConfig
from cod_jax.losses.terms import cosine_distance_per_image
from cod_jax.models import DDTConfig
from cod_jax.models.functional import Functional
from cod_jax.models.heads import FeatureHead
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from cod_jax.training.optimizer import AdamWConfig, EmaConfig
from cod_jax.training.state import init_state
from cod_jax.training.step import make_update
from tests.model_fixtures import numpy_params, tiny_model_config

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
    objective, optimizer = latent_objective(), AdamWConfig().build()
    assert set(frozen) == {"autoencoder", "dinov2"}
    assert set(objective.heads) == {"reconstruction", "feature_alignment", "condition_alignment"}
    shapes = jax.eval_shape(lambda: init_state(objective, {"model": optimizer}, jax.random.key(0)))
    params = jax.tree.map(jnp.asarray, numpy_params(shapes.params))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    state = dataclasses.replace(zeros, params=params, ema=params, key=jax.random.key_data(jax.random.key(1)))
    update = jax.jit(
        make_update(objective, objective.updates[0], optimizer, optax.constant_schedule(1e-3), EmaConfig(0.9))
    )
    after, metrics = update(state, frozen, {"image": images})
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
    assert objective.space.functional is not None
    moments = objective.space.functional.bind(frozen["autoencoder"]).encode_moments(
        images.astype(jnp.float32) / 127.5 - 1
    )
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


def test_fresh_heads_have_a_gradient_of_ordinary_size_where_the_condition_starts():
    # At zero: a head that made zero of it would have no direction, and a gradient of 1e8 under the cosine.
    head = Functional(lambda rngs: FeatureHead(8, 12, dtype="float32", rngs=rngs))
    params = head.init(jax.random.key(0))
    tokens = jax.random.normal(jax.random.key(1), (1, 2, 2, 12))

    def loss(condition: jax.Array) -> jax.Array:
        return jnp.sum(cosine_distance_per_image(head.bind(params)(condition), tokens))

    assert 0 < jnp.linalg.norm(jax.grad(loss)(jnp.zeros((1, 2, 2, 8)))) < 10
