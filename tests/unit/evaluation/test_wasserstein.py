"""Wasserstein distortion."""

import numpy as np
import pytest
from scipy import ndimage

from cod_jax.errors import UserError
from cod_jax.evaluation.wasserstein import wasserstein_distortion, window_statistics


def noise(seed: int, *, deviation: float = 20, side: int = 128) -> np.ndarray:
    values = 128 + deviation * np.random.default_rng(seed).standard_normal((side, side, 1))
    return values.clip(0, 255).astype(np.uint8).repeat(3, axis=-1)


def test_equal_pictures_have_none():
    assert wasserstein_distortion(noise(0), noise(0)) == 0
    assert wasserstein_distortion(noise(0)[:1, :1], noise(0)[:1, :1]) == 0


def test_texture_may_be_another_sample_and_must_not_be_smoothed_away():
    flat = np.full_like(noise(0), 128)
    resampled, smoothed = (wasserstein_distortion(noise(0), other) for other in (noise(1), flat))
    assert resampled < smoothed / 20
    # A squared error, which it is without windows, says the opposite.
    resampled, smoothed = (wasserstein_distortion(noise(0), other, num_levels=0) for other in (noise(1), flat))
    assert resampled > 1.5 * smoothed


def test_a_larger_window_forgives_more():
    values = [wasserstein_distortion(noise(0), noise(1), num_levels=levels) for levels in range(5)]
    assert values == sorted(values, reverse=True)


def test_statistics_are_those_of_the_window():
    luminance = np.array([0.299, 0.587, 0.114])
    picture = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    mean, deviation = window_statistics(picture, num_levels=2)[0]
    assert mean.shape == (7, 12, 20)

    def window(x: np.ndarray) -> np.ndarray:
        for step in (2, 1):
            for axis in (0, 1):
                x = ndimage.correlate1d(x, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
            x = x[::step, ::step]
        return x

    plane = picture @ luminance
    np.testing.assert_allclose(mean[0], window(plane), rtol=1e-5)
    np.testing.assert_allclose(deviation[0], np.sqrt(window(plane**2) - window(plane) ** 2), rtol=1e-3, atol=0.1)


def test_directions_are_told_apart():
    """A grating is seen most by the filter across it; brightness by none."""
    columns = np.arange(64)
    for angle, index in ((0.0, 3), (np.pi / 2, 5)):
        waves = np.sin(2 * np.pi * (columns * np.cos(angle) + columns[:, None] * np.sin(angle)) / 6)
        picture = (128 + 100 * waves).astype(np.uint8)[..., None].repeat(3, axis=-1)
        _, deviation = window_statistics(picture)[0]
        assert np.argmax(deviation[3:].mean(axis=(1, 2))) + 3 == index
    mean, deviation = window_statistics(np.full((32, 32, 3), 200, np.uint8))[0]
    assert np.abs(mean[1:]).max() < 0.5
    assert deviation[3:].max() < 0.1


def test_it_grows_with_the_error_and_knows_the_shape():
    values = [wasserstein_distortion(noise(0), noise(0, deviation=deviation)) for deviation in (21, 25, 40)]
    assert values == sorted(values)
    with pytest.raises(UserError, match="expected two pictures of one shape"):
        wasserstein_distortion(noise(0), noise(0)[:-1])
    with pytest.raises(UserError, match=r"expected a picture uint8 \[H, W, 3\], got uint8 \(4, 4\)"):
        window_statistics(np.zeros((4, 4), np.uint8))


def test_a_negative_window_is_refused():
    picture = np.full((20, 30, 3), 90, np.uint8)
    with pytest.raises(UserError, match="expected num_levels to be at least 0, got -1"):
        wasserstein_distortion(picture, picture, num_levels=-1)
