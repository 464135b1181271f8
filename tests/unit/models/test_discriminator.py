"""Discriminators of both kinds."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.losses.adversarial import discriminator_loss
from cod_jax.models.discriminator import DINOv2DiscriminatorConfig, Discriminator, PatchDiscriminatorConfig
from cod_jax.models.functional import flatten_params
from cod_jax.nn.spectral_norm import init_singular_vectors, spectral_normalize
from configs import base
from tests.model_fixtures import numpy_params

TINY_DINOV2 = DINOv2Config(patch_size=2, width=8, num_blocks=3, num_heads=2, mlp_width=16, table_side=3)


DISCRIMINATORS = {
    "dinov2": Discriminator(DINOv2DiscriminatorConfig(layers=(0, 2)), dinov2=TINY_DINOV2),
    "patch": Discriminator(PatchDiscriminatorConfig(widths=(4, 8))),
}


@pytest.fixture(params=list(DISCRIMINATORS))
def discriminator(request) -> Discriminator:
    return DISCRIMINATORS[request.param]


def frozen_params(discriminator: Discriminator) -> dict[str, Any]:
    shapes = {name: functional.shapes for name, functional in discriminator.frozen.items()}
    return jax.tree.map(jnp.asarray, numpy_params(shapes))


def start(discriminator: Discriminator) -> tuple[Any, Any]:
    params = jax.tree.map(jnp.asarray, numpy_params(discriminator.functional.shapes))
    return params, init_singular_vectors(params, jax.random.key(0))


def images(batch: int = 2, height: int = 32, width: int = 48) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32))


@partial(jax.jit, static_argnums=0)
def judge(discriminator: Discriminator, params: Any, vectors: Any, image: jax.Array, frozen: Any) -> Any:
    return discriminator.logits(params, vectors, image, frozen)


def test_every_patch_gets_a_logit(discriminator):
    logits = judge(discriminator, *start(discriminator), images(), frozen_params(discriminator))
    expected = (2, 2, 3, 2) if discriminator.frozen else (2, 8, 12, 1)
    assert logits.shape == expected
    assert logits.dtype == jnp.float32


def test_logits_do_not_depend_on_the_scale_of_kernels(discriminator):
    params, state = start(discriminator)
    frozen = frozen_params(discriminator)
    logits = judge(discriminator, params, state, images(), frozen)
    doubled = jax.tree.map(lambda x: 2 * x if x.ndim > 1 else x, params)
    logits_doubled = judge(discriminator, doubled, state, images(), frozen)
    np.testing.assert_allclose(logits_doubled, logits, rtol=1e-4, atol=1e-5)


def test_a_few_steps_tell_two_kinds_of_pictures_apart(discriminator):
    params, state = start(discriminator)
    frozen = frozen_params(discriminator)
    real, fake = images(), 0.1 * images()

    @jax.jit
    def step(params, state):
        def loss(params):
            real_logits, fake_logits = (discriminator.logits(params, state, x, frozen) for x in (real, fake))
            return discriminator_loss(real_logits, fake_logits)

        value, gradient = jax.value_and_grad(loss)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        return value, params, spectral_normalize(params, state, train=True)[1]

    losses = []
    for _ in range(20):
        value, params, state = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.9 * losses[0]


def test_pictures_get_a_gradient(discriminator):
    params, state = start(discriminator)
    frozen = frozen_params(discriminator)

    @jax.jit
    def gradient(image):
        return jax.grad(lambda x: jnp.sum(discriminator.logits(params, state, x, frozen)))(image)

    assert np.any(gradient(images(1)))


def test_every_parameter_and_vector_names_its_axes_and_the_default_rules_know_them(discriminator):
    rules = base.get_config().to_dict()["sharding"]["rules"]
    params, state = jax.eval_shape(lambda: start(discriminator))
    for tree, names in ((params, discriminator.axes), (state, discriminator.state_axes)):
        shapes, axes = flatten_params(tree), flatten_params(names)
        assert shapes.keys() == axes.keys()
        for name, leaf in shapes.items():
            assert len(axes[name]) == leaf.ndim, name
            assert set(axes[name]) <= set(rules), name


def test_the_published_heads_have_22_million_parameters():
    params = Discriminator(DINOv2DiscriminatorConfig()).functional.shapes
    state = jax.eval_shape(lambda params: init_singular_vectors(params, jax.random.key(0)), params)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 22_419_460
    assert sum(leaf.size for leaf in jax.tree.leaves((params, state))) == 22_456_328


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="layers must name at least one block of DINOv2"):
        DINOv2DiscriminatorConfig(layers=())
    with pytest.raises(ValueError, match="at least one convolution"):
        PatchDiscriminatorConfig(widths=())
    patch = DISCRIMINATORS["patch"]
    with pytest.raises(ValueError, match="must have at least 4 pixels for 2 convolutions with stride 2, got 3x48"):
        jax.eval_shape(patch.logits, *start(patch), images(height=3), {})
