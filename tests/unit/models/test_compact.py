"""Compact condition codecs and denoisers, which start as a transform of pictures."""

import functools
import json
import re
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.models import (
    CompactCodecConfig,
    CompactDenoiserConfig,
    ModelConfig,
    build_model,
    flatten_params,
    unflatten_params,
)
from cod_jax.models.functional import Params
from cod_jax.models.patch_transform import patch_moments, transform
from tests.model_fixtures import tiny_compact_config

STEP = 0.05


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a picture uint8 [height, width, 3] whose spectrum falls as that of photographs."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]) + 1 / max(height, width)
    spectrum = np.fft.fft2(generator.standard_normal((3, height, width))) / frequency**1.5
    channels = np.fft.ifft2(spectrum).real
    mixed = np.einsum("ij,jyx->yxi", [[1, 0.2, 0.1], [1, -0.1, 0.1], [1, -0.1, -0.2]], channels)
    return np.clip(128 + 50 * mixed / mixed.std(), 0, 255).astype(np.uint8)


@functools.cache
def fitted(config: ModelConfig, seed: int = 0) -> tuple[Params, list[np.ndarray]]:
    """Return the parameters of a fresh model that is fitted to pictures, and these."""
    images = [photograph(64, 96, index) for index in range(8)]
    params = jax.tree.map(np.asarray, build_model(config).init(jax.random.key(seed)))
    made = config.codec.fit(params, patch_moments(images), config.denoiser)
    return jax.tree.map(jnp.float32, made), images


def linear_path(params: Params) -> Params:
    """Return the parameters with zeros in the last layers of the blocks, which start small."""
    is_last = re.compile(r".*(block/project|mlp_out|encoder/out|decoder/lift)/kernel")
    flat = flatten_params(params)
    return unflatten_params({n: 0 * value if is_last.fullmatch(n) else value for n, value in flat.items()}, params)


@functools.cache
def decoder(config: ModelConfig) -> Callable[[Params, np.ndarray, np.ndarray], jax.Array]:
    """Return the compiled reconstruction in one step."""

    def run(params, image_uint8, level):
        model = build_model(config).bind(params)
        return model.one_step(model.codec.condition(jnp.asarray(image_uint8, jnp.float32) / 255, level=level))

    return jax.jit(run)


def decoded(config: ModelConfig, params: Params, image_uint8: np.ndarray, level: int = 0) -> np.ndarray:
    """Return the one-step reconstruction [H, W, 3] in [-1, 1]."""
    return np.asarray(decoder(config)(params, image_uint8[None], np.array([level], np.int32)))[0]


@pytest.mark.parametrize("pitch", [pytest.param(16, marks=pytest.mark.slow), 8])
def test_a_fitted_model_is_a_transform_codec(pitch: Literal[8, 16]):
    config = tiny_compact_config(pitch=pitch, step=STEP, num_levels=2)
    fresh, images = fitted(config)
    params = linear_path(fresh)
    image = images[0] / 127.5 - 1
    patches = image.reshape(4, 16, 6, 16, 3).swapaxes(1, 2).reshape(-1, 768)
    made = transform(patch_moments(images), 32, config.codec.latent_channels, pitch)
    basis = made.basis[:, : config.codec.latent_channels * (16 // pitch) ** 2]
    of_transform = np.mean((patches - made.mean - (patches - made.mean) @ basis @ basis.T) ** 2)
    # Rounding to bins of a width adds a twelfth of its square in each latent.
    of_rounding = STEP**2 / 12 * basis.shape[1] / 768
    best, low = (np.mean((decoded(config, params, images[0], level) - image) ** 2) for level in (1, 0))
    assert of_transform < 0.2 * image.var()
    assert best == pytest.approx(of_transform + of_rounding, rel=0.01)
    assert best < low < best + 3 * of_rounding
    assert np.mean((decoded(config, fresh, images[0], 1) - image) ** 2) < 1.3 * best


@pytest.mark.slow
def test_mean_and_contrast_pass():
    config = tiny_compact_config(step=STEP)
    params = linear_path(fitted(config)[0])
    for value in (20, 128, 235):
        even = np.full((64, 96, 3), value, np.uint8)
        assert np.abs(decoded(config, params, even) - (value / 127.5 - 1)).max() < 0.1
    image = photograph(64, 96, 3)
    weak = (128 + (image.astype(float) - 128) / 4).astype(np.uint8)
    strong_std, weak_std = decoded(config, params, image).std(), decoded(config, params, weak).std()
    assert 3 < strong_std / weak_std < 5


def test_a_fitted_density_is_as_wide_as_the_latents():
    config = tiny_compact_config(step=STEP)
    params, images = fitted(config)

    def bits(params, image01, noise):
        model = build_model(config).bind(params)
        z = model.codec.encode(image01)
        return model.codec.quantize(z, level=jnp.zeros((8,), jnp.int32), noise=noise).statistics["bits"], z

    image01 = jnp.asarray(np.stack(images), jnp.float32) / 255
    cost, z = jax.jit(bits)(params, image01, jnp.zeros((8, 4, 6, 24)))
    entropy = np.log2(np.asarray(z).std((0, 1, 2)) * np.sqrt(2 * np.pi * np.e)).clip(0).sum()
    assert float(cost.mean()) / 24 < entropy + 24 * 1.0


def test_a_description_comes_back_and_names_its_kinds():
    config = tiny_compact_config(num_levels=3)
    values = json.loads(json.dumps(config.to_dict()))
    assert (values["codec"]["kind"], values["denoiser"]["kind"]) == ("compact", "compact")
    assert ModelConfig.from_dict(values) == config
    assert config.codec.symbols.num_levels == 3
    assert (config.codec.fits_pictures, ModelConfig().codec.fits_pictures) == (True, False)
    assert "kind" not in ModelConfig().to_dict()["codec"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CompactCodecConfig(pitch=4), "pitch must be 8 or 16, got 4"),
        (lambda: CompactCodecConfig(hidden=40), "hidden must be at least 64, the latents of 16x16 pixels, got 40"),
        (lambda: CompactCodecConfig(pitch=8), "hidden must be at least 256, the latents of 16x16 pixels, got 160"),
        (lambda: CompactCodecConfig(hidden=769), "hidden must be between 1 and 768, the values of a patch .* got 769"),
        (lambda: CompactDenoiserConfig(hidden=1000), "hidden must be between 1 and 768, .* got 1000"),
        (lambda: CompactCodecConfig(step=0.0), r"step must be a positive number, got 0\.0"),
        (lambda: CompactCodecConfig(step=float("nan")), "step must be a positive number, got nan"),
        (lambda: CompactDenoiserConfig(mlp_ratio=0.01), "mlp_ratio"),
        (lambda: CompactDenoiserConfig(num_refine_blocks=0), "num_refine_blocks must be between 1 and 256, got 0"),
        (lambda: ModelConfig(codec=CompactCodecConfig()), "needs a denoiser of kind compact with hidden at least 64, "),
        (
            lambda: ModelConfig(CompactCodecConfig(), CompactDenoiserConfig(hidden=48)),
            "needs a denoiser of kind compact with hidden at least 64, got kind compact with 48",
        ),
        (lambda: ModelConfig.from_dict({"codec": {"kind": "compact", "num_groups": 4}}), "unknown field .*num_groups"),
        (lambda: ModelConfig.from_dict({"codec": {"kind": "tiny"}}), "kind must be one of cod, compact, or package"),
    ],
)
def test_what_does_not_go_together_is_refused(build, message: str):
    with pytest.raises(UserError, match=message):
        build()


def test_as_many_channels_as_a_patch_has_values_are_possible():
    config = ModelConfig(
        CompactCodecConfig(hidden=768, latent_channels=8, num_encoder_blocks=1, num_decoder_blocks=1, mlp_ratio=0.5),
        CompactDenoiserConfig(hidden=768, num_blocks=1, mlp_ratio=0.5, refined=4, num_refine_blocks=1),
    )
    functional = build_model(config)
    shapes = config.codec.fit(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), functional.shapes),
        patch_moments([photograph(64, 64)]),
        config.denoiser,
    )
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(lambda leaf: leaf.shape, functional.shapes)


def test_a_fresh_model_does_not_see_the_noise_and_a_trained_one_does():
    config = tiny_compact_config(step=STEP)
    params, _ = fitted(config)

    @jax.jit
    def predict(params, x_t, t):
        model = build_model(config).bind(params)
        condition = model.codec.decode(jnp.zeros((1, 2, 3, 24)))
        return model.denoise(x_t, t, condition).prediction

    noise = jax.random.normal(jax.random.key(0), (1, 32, 48, 3))
    at_zero, later = predict(params, noise, jnp.zeros(1)), predict(params, 2 * noise, jnp.full(1, 0.7))
    np.testing.assert_allclose(at_zero, later, atol=1e-5)
    rows = params["denoiser"]["patch_embed"]["kernel"]
    trained = {**params["denoiser"], "patch_embed": {"kernel": np.full(rows.shape, 0.01, np.float32)}}
    assert np.abs(predict({**params, "denoiser": trained}, noise, jnp.zeros(1)) - at_zero).max() > 1e-3
