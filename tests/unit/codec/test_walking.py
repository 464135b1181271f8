"""The walk of mode diffc with a Gaussian model, whose exact answers are known."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from cod_jax.codec import walking
from cod_jax.coding import walk
from cod_jax.coding.reverse_channel import Layout
from cod_jax.diffusion import diffc
from cod_jax.errors import UserError

NUM_CHUNKS = 6


class _GaussianModel:
    """The exact model of values that are independent and normal, with the standard deviations of a picture."""

    def __init__(self, deviation: np.ndarray):
        self.power = deviation**2

    def __call__(self, x_t: np.ndarray, t: float) -> np.ndarray:
        gain = self.power * t / (t**2 * self.power + (1 - t) ** 2)
        return (gain * x_t).astype(np.float32)

    def information(self, snr_squared: float) -> float:
        """Return the mutual information of picture and state in bits."""
        return float(0.5 * np.sum(np.log2(1 + self.power * snr_squared)))


@pytest.fixture(scope="module")
def gaussian() -> Any:
    """Return a Gaussian model, one of its pictures, and 25 steps towards that."""
    deviation = np.geomspace(0.3, 2, 48 * 48 * 3).reshape(1, 48, 48, 3).astype(np.float32)
    model = _GaussianModel(deviation)
    target = deviation * np.random.default_rng(0).standard_normal(deviation.shape).astype(np.float32)
    layout = Layout(target.size, NUM_CHUNKS, walking.BITS)
    coded = list(itertools.islice(walking.steps_towards(target, model, layout), 25))
    return SimpleNamespace(model=model, target=target, coded=coded)


def test_the_decoder_has_the_states_of_the_encoder_bit_for_bit(gaussian: Any):
    path = list(walking.states(gaussian.target.shape, gaussian.model, walking.written(gaussian.coded)))
    assert len(path) == 26
    assert path[0].snr_squared == 0
    for step, state in zip(gaussian.coded, path[1:], strict=True):
        assert state.snr_squared == step.after.snr_squared
        np.testing.assert_array_equal(state.values, step.after.values)


def test_states_are_distributed_like_noisy_pictures(gaussian: Any):
    for number in (5, 15, 25):
        state = gaussian.coded[number - 1].after
        signal = diffc.signal_power(state.snr_squared)
        noise = ((state.values - signal**0.5 * gaussian.target) / (1 - signal) ** 0.5).ravel()
        assert abs(noise.mean()) < 3.5 / noise.size**0.5
        assert abs(noise.var() - 1) < 3.5 * (2 / noise.size) ** 0.5
        assert scipy.stats.kstest(noise, "norm").pvalue > 0.001
        # Nothing of the picture is missing, and nothing of it is in the noise.
        share = np.sum(noise * gaussian.target.ravel()) / np.sqrt(np.sum(gaussian.target**2))
        assert abs(share) < 3.5


def test_the_rate_is_the_divergence_and_the_documented_overhead(gaussian: Any):
    before, divergences = walking.start(gaussian.target.shape), []
    for step in gaussian.coded:
        error = gaussian.target - walking.estimate_at(gaussian.model, before)
        squared = float(np.sum(error**2, dtype=np.float64))
        divergences.append(diffc.kl_bits(squared, before.snr_squared, step.after.snr_squared))
        before = step.after
    # Each step has the divergence it is meant to have, up to half an eighth of a doubling.
    meant = (walking.BITS - walking.PADDING) * NUM_CHUNKS
    assert np.abs(np.array(divergences) / meant - 1).max() < 0.07
    # Together they are what the state tells about the picture: the model is exact.
    information = gaussian.model.information(before.snr_squared)
    assert sum(divergences) == pytest.approx(information, rel=0.05)
    bits = 8 * len(walk.write_walk("raw", b"", walking.written(gaussian.coded)))
    overhead = len(divergences) * (NUM_CHUNKS * np.log2(walking.BITS - walking.PADDING + 1) + 2) + 10 * 8
    assert bits == pytest.approx(sum(divergences) + overhead, rel=0.1)


def test_a_state_elsewhere_may_be_rounded_and_not_be_another(gaussian: Any):
    path = list(walking.states(gaussian.target.shape, gaussian.model, walking.written(gaussian.coded)))
    steps = walking.written(gaussian.coded)
    for drift, passes in ((0.003, True), (0.3, False)):
        noise = np.random.default_rng(0).standard_normal(gaussian.target.shape)
        state = walking.State((path[-1].values + drift * noise).astype(np.float32), path[-1].snr_squared)
        if passes:
            walking.verify(steps, state)
        else:
            with pytest.raises(UserError, match="another state than the encoder's"):
                walking.verify(steps, state)
