"""Training the networks of mode "predictive"."""

import numpy as np
import pytest

from cod_jax.coding.entropy.predictive_fitting import fit_predictive
from cod_jax.models.bottlenecks.network_fitting import with_network
from tests.coding_fixtures import channels


@pytest.mark.slow
def test_training_makes_files_smaller():
    # The second channel is zero where the first is far from it, which no sum with positive weights can say.
    def grid(seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        first = generator.integers(-3, 4, (32, 32))
        second = np.where(abs(first) > 1, 0, generator.integers(-9, 10, (32, 32)))
        return np.stack([first, second], axis=-1).astype(np.int32)

    grids = [grid(seed) for seed in range(12)]
    without = fit_predictive(grids, [0] * 12, channels(2, 1))
    trained = with_network(without, grids, [0] * 12, channels(2, 1), steps=150)
    data = trained.encode(grid(99), 0)
    np.testing.assert_array_equal(trained.decode(data, rows=32, columns=32)[0], grid(99))
    assert len(data) < 0.9 * len(without.encode(grid(99), 0))
