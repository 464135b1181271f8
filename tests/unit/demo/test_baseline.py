"""The trivial coder of equal rate."""

import numpy as np
import pytest

from cod_jax.errors import UserError
from demo import baseline
from demo.comparison import squared_error


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_cell_means_count_only_pixels_of_the_picture():
    image = np.zeros((5, 7, 3), np.uint8)
    image[4, 6] = 200
    means = baseline.cell_means(image, 4)
    assert means.shape == (2, 2, 3)
    np.testing.assert_allclose(means[1, 1], 200 / 3, rtol=1e-6)
    assert means[0].max() == 0


def test_one_colour_for_one_cell_is_the_mean_colour():
    image = _noise(6, 9)
    colours = baseline.fit_colours([image], pitch=16, num_colours=1)
    np.testing.assert_array_equal(baseline.paint_colours(image, colours, 16), baseline.paint_mean(image))


def test_as_many_colours_as_pixels_repeat_the_picture():
    image = _noise(4, 5)
    colours = baseline.fit_colours([image], pitch=1, num_colours=20)
    np.testing.assert_array_equal(baseline.paint_colours(image, colours, 1), image)


def test_fewer_different_cells_than_colours_give_fewer_colours():
    flat = np.full((8, 8, 3), 9, np.uint8)
    assert baseline.fit_colours([flat], pitch=2, num_colours=16).shape == (1, 3)


def test_more_colours_paint_better():
    images = [_noise(32, 32, seed) for seed in (1, 2)]
    errors = [
        sum(squared_error(i, baseline.paint_colours(i, baseline.fit_colours(images, 4, k), 4)) for i in images)
        for k in (1, 4, 16, 64)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_colours_are_the_same_every_time():
    image = _noise(24, 24)
    np.testing.assert_array_equal(baseline.fit_colours([image], 4, 8), baseline.fit_colours([image], 4, 8))


@pytest.mark.parametrize(
    ("images", "pitch", "num_colours"), [([], 4, 4), ([_noise(4, 4)], 0, 4), ([_noise(4, 4)], 4, 0)]
)
def test_senseless_requests_are_refused(images, pitch, num_colours):
    with pytest.raises(UserError, match="at least"):
        baseline.fit_colours(images, pitch, num_colours)
