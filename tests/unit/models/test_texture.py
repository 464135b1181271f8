"""Texture that more steps than one add to the pictures of a compact model."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import model_fingerprint, save_bundle
from cod_jax.models import CompactDenoiserConfig, ModelConfig, build_model, flatten_params
from cod_jax.models.compact import CompactDenoiser
from cod_jax.models.functional import Params
from cod_jax.models.texture import texture_axes
from cod_jax.specialize.folding import fold
from cod_jax.training.config_files import read_settings
from cod_jax.training.initial import load_initial
from cod_jax.training.objectives.adaptation import without_frozen
from tests.model_fixtures import numpy_params, tiny_compact_config

SHAPE = (1, 32, 48, 3)


def with_texture() -> ModelConfig:
    """Return a tiny compact model with texture."""
    config = tiny_compact_config()
    assert isinstance(config.denoiser, CompactDenoiserConfig)
    denoiser = dataclasses.replace(config.denoiser, num_texture_blocks=1, texture_features=8)
    return dataclasses.replace(config, denoiser=denoiser)


@functools.cache
def parameters() -> Params:
    """Return parameters without zeros."""
    return numpy_params(build_model(with_texture()).shapes)


def without_texture(params: Params) -> Params:
    """Return the parameters of the same model without its texture."""
    denoiser = {name: part for name, part in params["denoiser"].items() if name != "texture"}
    return {**params, "denoiser": denoiser}


@functools.cache
def prediction(t: float, *, texture: bool = True) -> np.ndarray:
    """Return what the model predicts for a noisy picture, or without its texture for zeros."""
    config = with_texture() if texture else tiny_compact_config()
    params = parameters() if texture else without_texture(parameters())

    @jax.jit
    def run(params: Params) -> jax.Array:
        model = build_model(config).bind(params)
        condition = model.codec.decode(jax.random.normal(jax.random.key(1), (1, 2, 3, 24)))
        x_t = jax.random.normal(jax.random.key(0), SHAPE) if texture else jnp.zeros(SHAPE)
        return model.predict(x_t, jnp.full(1, t), condition)

    return np.asarray(run(params))


@pytest.mark.slow
def test_the_picture_of_one_step_is_that_without_texture():
    np.testing.assert_allclose(prediction(0.0), prediction(0.0, texture=False), rtol=1e-5, atol=1e-5)
    assert np.abs(prediction(0.9) - prediction(0.0)).max() > 0.01


def patches(grey: np.ndarray) -> np.ndarray:
    """Return the values of patches of 4x4 pixels [h, w, 16] along `texture_axes`, of a picture [H, W]."""
    height, width = grey.shape
    cut = grey.reshape(height // 4, 4, width // 4, 4).swapaxes(1, 2)
    return cut.reshape(height // 4, width // 4, 16) @ texture_axes()[0].T


def test_a_fresh_model_knows_texture_whose_patches_are_independent():
    axes, spreads = texture_axes()
    np.testing.assert_allclose(axes @ axes.T, np.eye(16), atol=1e-6)
    params = build_model(with_texture()).init(jax.random.key(0))
    generator = np.random.default_rng(0)
    picture, noise = generator.standard_normal((2, 1, 128, 128, 3), np.float32)
    cut = (spreads * generator.standard_normal((32, 32, 16))) @ axes
    grey = cut.reshape(32, 32, 4, 4).swapaxes(1, 2).reshape(128, 128).astype(np.float32)
    texture = np.repeat(grey[None, :, :, None], 3, axis=-1) / np.sqrt(np.float32(3))

    @jax.jit
    def expected(t: jax.Array) -> jax.Array:
        denoiser = build_model(with_texture()).bind(params).denoiser
        assert isinstance(denoiser, CompactDenoiser)
        assert denoiser.texture is not None
        x_t = t * (picture + texture) + (1 - t) * noise
        return denoiser.texture(x_t, t[None], jnp.asarray(picture), jnp.zeros((1, 8, 8, 32)))

    for t in (0.5, 0.9, 0.97):
        # The posterior mean of a Gaussian leaves its posterior variance.
        found = np.asarray(expected(jnp.float32(t)))[0]
        np.testing.assert_allclose(np.ptp(found, axis=-1), 0, atol=1e-6)
        error = patches(found.sum(axis=-1) / np.sqrt(3) - grey)
        variances = 1 / (1 / spreads**2 + (t / (1 - t)) ** 2)
        np.testing.assert_allclose(np.mean(error**2, axis=(0, 1)), variances, rtol=0.25)
    np.testing.assert_allclose(expected(jnp.float32(1.0)), texture, atol=1e-5)
    assert not np.asarray(expected(jnp.float32(0.0))).any()


def test_the_program_of_one_step_has_no_texture():
    """Neither the compiled one nor that of the plain model, where the timestep is a constant."""
    names = flatten_params(fold(with_texture(), parameters())[1])
    assert not [name for name in names if "texture" in name]

    def one_step(params: Params, condition: jax.Array) -> jax.Array:
        return build_model(with_texture()).bind(params).one_step(condition)

    text = jax.jit(one_step).lower(parameters(), jnp.zeros((1, 2, 3, 32))).compile().as_text()
    assert text is not None
    assert "conditional" not in text


def test_models_without_texture_are_described_as_before():
    config = tiny_compact_config()
    assert not [name for name in config.to_dict()["denoiser"] if "texture" in name]
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert ModelConfig.from_dict(with_texture().to_dict()) == with_texture()
    flat = flatten_params(parameters())
    assert model_fingerprint(config, flat) != model_fingerprint(with_texture(), flat)


@pytest.mark.parametrize("start_has_texture", [False, True])
def test_a_run_starts_from_models_with_and_without_texture(tmp_path: Path, start_has_texture: bool):
    start, goal = (
        with_texture() if has else tiny_compact_config() for has in (start_has_texture, not start_has_texture)
    )
    params = parameters() if start_has_texture else without_texture(parameters())
    save_bundle(tmp_path / "model", start, params, training={})
    shapes = {"model": build_model(goal).shapes}
    initial = load_initial(str(tmp_path / "model"), "raw", shapes, goal.denoiser.OPTIONAL)
    names = initial.left_out if start_has_texture else initial.grown
    assert names
    assert all(name.startswith("model/denoiser/texture/") for name in names)
    with pytest.raises(UserError, match="denoiser/texture"):
        load_initial(str(tmp_path / "model"), "raw", shapes, ())


def test_the_config_trains_the_texture_alone():
    settings = read_settings("configs/compact.py:objective=texture", [])
    config = ModelConfig.from_dict(settings["model"])
    names = [f"model/{name}" for name in flatten_params(build_model(config).shapes)]
    trained = without_frozen(names, tuple(settings["objective"]["freeze"]))
    assert trained == tuple(name for name in names if name.startswith("model/denoiser/texture/"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prediction": "velocity", "num_texture_blocks": 1}, 'num_texture_blocks needs prediction "image", got "vel'),
        ({"num_texture_blocks": -1}, "num_texture_blocks must be between 0 and 256, got -1"),
        ({"texture_features": 0}, "texture_features must be between 1 and 16384, got 0"),
    ],
)
def test_unusable_descriptions_are_refused(fields: dict, message: str):
    with pytest.raises(UserError, match=message):
        CompactDenoiserConfig(**fields)
