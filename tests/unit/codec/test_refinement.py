"""Symbols that are refined for one picture."""

import numpy as np
import pytest

import cod_jax
from cod_jax.codec import Codec
from cod_jax.codec.refinement import Weights, weights_of
from cod_jax.errors import UserError
from cod_jax.evaluation import metrics
from tests.model_fixtures import gradient_image, tiny_codec


def training(**reconstruction: float) -> dict:
    """Return the facts of a training with two quality levels."""
    return {"config": {"objective": {"bottleneck": {"rate_weights": [0.2, 0.1]}, "reconstruction": reconstruction}}}


def textured_image() -> np.ndarray:
    """Return a picture with an edge and texture, uint8 [96, 128, 3]."""
    noise = np.random.default_rng(0).normal(0, 12, (96, 128, 1))
    image = gradient_image(96, 128) + noise * (np.arange(128)[None, :, None] > 60)
    image[30:60, 20:50] = 220
    return np.clip(image, 0, 255).astype(np.uint8)


def cost(codec: Codec, image: np.ndarray, data: bytes) -> float:
    """Return the loss that the included model was trained with, at its fourth level."""
    rate, decoded = 8 * len(data) / image[..., 0].size, codec.decompress(data)
    # In values in [-1, 1]; lambda is that of configs/compact.py.
    squared_error = metrics.mean_squared_error(image, decoded) / 127.5**2
    return 0.6 * squared_error + 0.04 * (1 - metrics.ms_ssim(image, decoded)) + 0.05184 * rate


@pytest.mark.slow
def test_effort_lowers_the_cost_of_a_picture_and_changes_nothing_else():
    codec, image = cod_jax.load("compact"), textured_image()
    plain, refined = (codec.compress(image, quality=4, effort=effort) for effort in (0, 60))
    assert cost(codec, image, refined) < 0.98 * cost(codec, image, plain)
    # The same alone and in a batch, up to rounding in the last bits of sums.
    both = codec.compress([image, image[::-1]], quality=4, effort=60)
    assert cost(codec, image, both[0]) == pytest.approx(cost(codec, image, refined), rel=0.01)
    assert len(codec.compress(image, max_bytes=len(plain), effort=5)) <= len(plain)


@pytest.mark.parametrize("effort", [-1, 10_001, True, 1.0, "5"])
def test_other_efforts_are_refused(effort):
    with pytest.raises(UserError, match="effort must be a whole number from 0 to 10000, got"):
        tiny_codec().compress(gradient_image(16, 16), effort=effort)


def test_models_without_such_a_loss_are_refused(compiled_codec: Codec):
    with pytest.raises(UserError, match="effort needs a model that was trained on squared error or MS-SSIM and the"):
        tiny_codec().compress(gradient_image(16, 16), effort=1)
    with pytest.raises(UserError, match="effort needs the model folder, got a compiled one; leave it out, or give"):
        compiled_codec.compress(gradient_image(16, 16), effort=1)


def test_weights_are_those_of_the_training():
    facts = training(squared_error_weight=0.5, ms_ssim_weight=0.25, l1_weight=0.0, alignment_block=8)
    found = weights_of(facts, 2)
    np.testing.assert_array_equal(found.rate, np.array([0.2, 0.1], np.float32))
    assert found == Weights(found.rate, 0.5, 0.25)
    huge = training(squared_error_weight=10**400)
    for other in ({}, training(), training(squared_error_weight=1.0, lpips_vgg_weight=1.0), {"config": 3}, huge):
        with pytest.raises(UserError, match="effort needs"):
            weights_of(other, 2)
    with pytest.raises(UserError, match="effort needs"):
        weights_of(facts, 8)
