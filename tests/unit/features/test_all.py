import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dinov2 import DINOv2, DINOv2Config, normalize_imagenet
from cod_jax.features.latent_standin import SpaceToDepthProjection, block_basis
from cod_jax.features.lpips import ALEXNET, LPIPS, SHIFT, VGG16, Stage, _unit
from cod_jax.features.resize import bicubic_resize
from cod_jax.features.sd_vae import LATENT_SCALE, SDVAE, Moments, SDVAEConfig
from cod_jax.models.functional import Functional, flatten_params
from configs import base
from tests.model_fixtures import numpy_params

TINY_DINOV2 = DINOv2Config(patch_size=2, width=8, num_blocks=3, num_heads=2, mlp_width=16, table_side=3)
TINY_STAGES = (Stage((4,), kernel_size=5, stride=2, padding=2), Stage((6, 5), pool=3))
TINY_VAE = SDVAEConfig(widths=(4, 8), encoder_blocks=1, latent_channels=4, num_groups=2)


def dinov2(dtype: str = "float32") -> Functional[DINOv2]:
    return Functional(lambda rngs: DINOv2(TINY_DINOV2, dtype=dtype, rngs=rngs))


def vae(dtype: str = "float32") -> Functional[SDVAE]:
    return Functional(lambda rngs: SDVAE(TINY_VAE, dtype=dtype, rngs=rngs))


@partial(jax.jit, static_argnums=(0, 1, 4))
def run(functional: Any, method: str, params: Any, x: jax.Array, static: tuple = ()):
    return getattr(functional.bind(params), method)(x, *static)


def pictures(*shape: int, low: float = 0.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(low, 1, shape).astype(np.float32))


# --- resize


def test_resize_to_the_same_size_changes_nothing():
    x = pictures(2, 5, 7, 3)
    np.testing.assert_allclose(bicubic_resize(x, 5, 7), x, atol=1e-6)


def test_resize_keeps_a_constant_and_a_ramp_away_from_the_border():
    ramp = jnp.broadcast_to(jnp.arange(32.0)[None, :, None, None], (1, 32, 16, 1))
    np.testing.assert_allclose(bicubic_resize(jnp.ones_like(ramp), 28, 14), jnp.ones((1, 28, 14, 1)), atol=1e-6)
    # The kernel with a = -0.75 does not reproduce ramps exactly: its weights are off by a few hundredths of a pixel.
    expected = (np.arange(28) + 0.5) * 32 / 28 - 0.5
    np.testing.assert_allclose(bicubic_resize(ramp, 28, 14)[0, 2:-2, 3, 0], expected[2:-2], atol=0.05)


def test_resize_passes_gradients_by_the_transposed_weights():
    x, y = pictures(1, 8, 8, 1), pictures(1, 7, 7, 1)
    resized, pull_back = jax.vjp(lambda x: bicubic_resize(x, 7, 7), x)
    (gradient,) = pull_back(y)
    np.testing.assert_allclose(jnp.sum(resized * y), jnp.sum(x * gradient), rtol=1e-5)
    assert np.count_nonzero(gradient) == gradient.size


def test_the_extent_offset_moves_the_samples_together():
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, :, None, None], (1, 8, 1, 1))
    plain, moved = (bicubic_resize(ramp, 16, 1, extent_offset=offset)[0, :, 0, 0] for offset in (0.0, 0.1))
    assert np.all(moved[2:-2] < plain[2:-2])
    assert plain[-3] - moved[-3] > plain[2] - moved[2]


def test_resize_is_float32_for_bfloat16_input():
    assert bicubic_resize(pictures(1, 4, 4, 1).astype(jnp.bfloat16), 3, 3).dtype == jnp.float32


# --- DINOv2


def test_dinov2_gives_a_token_per_cell_and_layers_end_with_the_tokens():
    functional = dinov2()
    params = numpy_params(functional.shapes)
    image01 = pictures(2, 48, 32, 3)
    tokens = run(functional, "alignment_tokens", params, image01)
    assert tokens.shape == (2, 3, 2, 8)
    layers = run(functional, "discriminator_layers", params, normalize_imagenet(image01), ((0, 2),))
    assert layers.shape == (2, 2, 3, 2, 8)
    np.testing.assert_allclose(layers[1], tokens, atol=1e-5)
    assert not np.allclose(layers[0], tokens, atol=0.1)


def test_dinov2_takes_its_position_table_as_it_is_at_the_size_it_was_trained_at():
    functional = dinov2()
    params = numpy_params(functional.shapes)
    params["patch_embed"] = jax.tree.map(np.zeros_like, params["patch_embed"])
    embedded = run(functional, "embed", params, pictures(1, 6, 6, 3))
    table = params["positions"]
    np.testing.assert_allclose(embedded[0, 1:], table[1:], atol=1e-6)
    np.testing.assert_allclose(embedded[0, 0], table[0] + params["cls_token"], atol=1e-6)


def test_dinov2_computes_in_bfloat16_when_asked():
    functional = dinov2("bfloat16")
    params = numpy_params(functional.shapes)
    image01 = pictures(1, 48, 48, 3)
    tokens = run(functional, "alignment_tokens", params, image01)
    assert tokens.dtype == jnp.bfloat16
    expected = run(dinov2(), "alignment_tokens", params, image01)
    difference = np.linalg.norm(np.asarray(tokens, np.float32) - expected)
    assert 0 < difference < 0.03 * np.linalg.norm(expected)


def test_dinov2_refuses_sizes_and_layers_that_do_not_exist():
    network = dinov2().bind(dinov2().shapes)
    with pytest.raises(ValueError, match="30x32 pixels; both sides must be multiples of 16"):
        jax.eval_shape(network.alignment_tokens, jnp.zeros((1, 30, 32, 3)))
    with pytest.raises(ValueError, match="4x5 pixels; both sides must be multiples of 2"):
        jax.eval_shape(network, jnp.zeros((1, 4, 5, 3)))
    for layers in ((3,), (-1, 0), ()):
        with pytest.raises(ValueError, match="name blocks from 0 to 2"):
            network.layers(jnp.zeros((1, 4, 4, 3)), layers)


# --- VAE


def test_vae_encodes_and_decodes_at_its_stride():
    functional = vae()
    params = numpy_params(functional.shapes)
    moments = run(functional, "encode_moments", params, pictures(1, 6, 4, 3, low=-1))
    assert moments.mean.shape == moments.logvar.shape == (1, 3, 2, 4)
    assert run(functional, "decode", params, moments.mean).shape == (1, 6, 4, 3)


def test_vae_results_are_float32_in_a_bfloat16_network():
    functional = vae("bfloat16")
    image = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    moments = jax.eval_shape(lambda p, x: functional.bind(p).encode_moments(x), functional.shapes, image)
    decoded = jax.eval_shape(lambda p, x: functional.bind(p).decode(x), functional.shapes, moments.mean)
    assert {x.dtype.name for x in (moments.mean, moments.logvar, decoded)} == {"float32"}


def test_moments_sample_is_the_mean_plus_scaled_noise():
    moments = Moments.from_channels(jnp.array([1.0, 2.0, 0.0, -100.0])[None, None, None])
    np.testing.assert_allclose(moments.sample(jnp.full((1, 1, 1, 2), 3.0))[0, 0, 0], [4.0, 2.0], rtol=1e-5)


def test_vae_refuses_sizes_that_are_no_multiple_of_its_stride():
    network = vae().bind(vae().shapes)
    with pytest.raises(ValueError, match="5x4 pixels; both sides must be multiples of 2"):
        jax.eval_shape(network.encode_moments, jnp.zeros((1, 5, 4, 3)))


def test_published_vae_divides_sizes_by_8_and_its_latents_are_scaled_twice():
    assert SDVAEConfig().stride == 8
    assert round(LATENT_SCALE, 6) == 0.033179


# --- LPIPS


@cache
def lpips(dtype: str = "float32") -> Functional[LPIPS]:
    return Functional(lambda rngs: LPIPS(TINY_STAGES, dtype=dtype, rngs=rngs))


def lpips_params() -> Any:
    params = jax.tree.map(jnp.asarray, numpy_params(lpips().shapes))
    return params | {"weights": jax.tree.map(jnp.abs, params["weights"])}


@partial(jax.jit, static_argnums=0)
def distance_and_gradient(functional: Any, params: Any, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    distance, pull_back = jax.vjp(lambda a: functional.bind(params).distance(a, b), a)
    return distance, pull_back(jnp.ones_like(distance))[0]


def test_lpips_is_zero_for_equal_pictures_and_grows_with_the_difference():
    a, other = pictures(2, 3, 19, 22, 3, low=-1)
    b = jnp.stack([a[0], a[1] + 0.1 * other[1], a[2] + other[2]])
    distance, gradient = distance_and_gradient(lpips(), lpips_params(), a, b)
    assert distance[0] == 0
    assert not np.any(gradient[0])
    assert 0 < 10 * distance[1] < distance[2]
    assert np.any(gradient[1])


def test_lpips_has_a_finite_gradient_where_feature_vectors_vanish():
    params = lpips_params()
    convs = {number: {**conv, "bias": jnp.zeros_like(conv["bias"])} for number, conv in params["convs"].items()}
    dark = jnp.broadcast_to(jnp.asarray(SHIFT), (1, 19, 22, 3))  # 0 as the trunk sees it
    image = pictures(1, 19, 22, 3, low=-1)
    for a, b in ((dark, image), (image, dark), (dark, dark)):
        distance, gradient = distance_and_gradient(lpips(), {**params, "convs": convs}, a, b)
        assert (distance[0] > 0) == (a is not b)
        assert np.all(np.isfinite(gradient))
    vectors = jnp.stack([jnp.zeros(3), jnp.full((3,), 1e-30), jnp.array([3.0, 0.0, -4.0])])[None, None]
    units, pull_back = jax.vjp(_unit, vectors)
    np.testing.assert_allclose(units[0, 0], [[0, 0, 0], [0, 0, 0], [0.6, 0, -0.8]], atol=1e-7)
    (gradient,) = pull_back(jnp.ones_like(units))
    assert not np.any(gradient[0, 0, :2])
    assert np.any(gradient[0, 0, 2])


def test_lpips_computes_its_trunk_in_bfloat16_when_asked():
    a, b = pictures(2, 1, 19, 22, 3, low=-1)
    distance, _ = distance_and_gradient(lpips("bfloat16"), lpips_params(), a, b)
    expected, _ = distance_and_gradient(lpips(), lpips_params(), a, b)
    assert distance.dtype == jnp.float32
    np.testing.assert_allclose(distance, expected, rtol=0.05)
    assert not np.array_equal(distance, expected)


@pytest.mark.parametrize(("stages", "smallest"), [(VGG16, 16), (ALEXNET, 31), (TINY_STAGES, 5)])
def test_lpips_refuses_pictures_that_leave_nothing_to_compare(stages, smallest):
    functional = Functional(lambda rngs: LPIPS(stages, dtype="float32", rngs=rngs))
    network = functional.bind(functional.shapes)
    assert network.smallest_side == smallest
    image = jax.ShapeDtypeStruct((1, smallest, smallest + 1, 3), jnp.float32)
    features = jax.eval_shape(lambda p, x: functional.bind(p).features(x), functional.shapes, image)
    assert features[-1].shape[1] == 1
    with pytest.raises(ValueError, match=f"{smallest - 1}x{smallest} pixels; both sides must have at least {smallest}"):
        jax.eval_shape(network.features, jnp.zeros((1, smallest - 1, smallest, 3)))


# --- descriptions and parameters


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (DINOv2Config(), {"num_heads": 5}, "width 768 is not a multiple of num_heads 5"),
        (DINOv2Config(), {"num_blocks": 0}, "num_blocks is 0"),
        (SDVAEConfig(), {"widths": ()}, "widths is empty"),
        (SDVAEConfig(), {"widths": (128, 100)}, "multiples of num_groups 32"),
        (SDVAEConfig(), {"encoder_blocks": 0}, "encoder_blocks is 0"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **change)


@pytest.mark.parametrize("functional", [dinov2(), vae(), lpips()], ids=["dinov2", "vae", "lpips"])
def test_every_parameter_names_its_axes_and_the_default_rules_know_them(functional):
    rules = base.get_config().to_dict()["sharding"]["rules"]
    axes = flatten_params(functional.axes)
    for name, leaf in flatten_params(functional.shapes).items():
        assert len(axes[name]) == leaf.ndim, name
        assert set(axes[name]) <= set(rules), name


# --- stand-in for the VAE


def test_the_standin_projects_orthogonally():
    basis = block_basis().astype(np.float64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-6)
    standin = SpaceToDepthProjection()
    latent = pictures(2, 2, 3, 4, low=-1)
    image = standin.decode(latent)
    assert image.shape == (2, 16, 24, 3)
    np.testing.assert_allclose(standin.encode(image), latent, atol=1e-5)
    # Distances of latents are those of pictures, up to one factor.
    np.testing.assert_allclose(jnp.linalg.norm(image), 8 * jnp.linalg.norm(latent), rtol=1e-5)


def test_the_standin_keeps_the_colour_and_the_slope_of_a_block():
    standin = SpaceToDepthProjection()
    orange = jnp.broadcast_to(jnp.array([0.6, 0.0, -0.6]), (1, 8, 8, 3))
    np.testing.assert_allclose(standin.decode(standin.encode(orange)), orange, atol=1e-5)
    white = jnp.ones((1, 8, 16, 3))
    np.testing.assert_allclose(standin.encode(white)[0, 0, 1], [3**0.5, 0, 0, 0], atol=1e-5)
    ramp = jnp.broadcast_to(jnp.linspace(-1, 1, 8)[None, :, None, None], (1, 8, 8, 3))
    for steep in (ramp, ramp.swapaxes(1, 2)):
        error = jnp.mean((standin.decode(standin.encode(steep)) - steep) ** 2)
        assert error < 0.02 * jnp.mean(steep**2)


def test_the_standin_refuses_sizes_that_are_no_multiple_of_8():
    with pytest.raises(ValueError, match="12x8 pixels; both sides must be multiples of 8"):
        SpaceToDepthProjection().encode(jnp.zeros((1, 12, 8, 3)))
