"""Steps of DiffC against the public implementation; numbers of `diffc_math`, which was computed on a CPU."""

import math

import numpy as np
import pytest

from cod_jax.coding.walk import zipf_exponent
from cod_jax.diffusion import diffc
from tests.parity.cases import Case


@pytest.fixture(scope="module")
def case():
    return dict(Case("diffc_math").arrays)


def _snr_squared(timestep: int) -> float:
    """Return the signal-to-noise ratio of a published timestep, whose noise level is (timestep - 1) / 1000."""
    noise = (timestep - 1) / 1000
    return ((1 - noise) / noise) ** 2 if noise else math.inf


def test_ratios_and_coordinates(case):
    published = zip(case["snr_timesteps"], case["snr"], case["alpha_prod"], case["ot_to_ddpm_factor"], strict=True)
    for timestep, snr, alpha, factor in published:
        if not math.isfinite(snr):
            continue
        ours = _snr_squared(int(timestep))
        assert math.sqrt(ours) == pytest.approx(snr, rel=1e-12)
        assert diffc.signal_power(ours) == pytest.approx(alpha, rel=1e-12)
        assert 1 / diffc.flow_scale(ours) == pytest.approx(factor, rel=1e-9)
        assert diffc.flow_time(ours) == pytest.approx(1 - (timestep - 1) / 1000, rel=1e-12)


def test_means_and_deviations_of_prior_and_posterior(case):
    x, x0, noise = (case[name].astype(np.float64) for name in ("noisy_latent", "target_latent", "noise_prediction"))
    for number, (before, after) in enumerate(case["pairs"].tolist()):
        ratios = _snr_squared(before), _snr_squared(after)
        step = diffc.transition(*ratios)
        a = diffc.signal_power(ratios[0])
        estimate = (x - math.sqrt(1 - a) * noise) / math.sqrt(a)
        prior, posterior = (step.estimate * mean + step.state * x for mean in (estimate, x0))
        # The fixture was computed in float32, with errors of up to 1.1e-5 of the largest number.
        for ours, published in ((prior, case["P_mean"][number]), (posterior, case["Q_mean"][number])):
            np.testing.assert_allclose(ours, published, atol=3e-5 * max(1, np.abs(published).max()), rtol=0)
        assert step.std == pytest.approx(case["P_std"][number], rel=1e-9)
        # The published divergence is that of means in units of the deviation.
        direct = 0.5 * np.sum(((posterior - prior) / step.std) ** 2) / math.log(2)
        assert diffc.kl_bits(float(np.sum((x0 - estimate) ** 2)), *ratios) == pytest.approx(direct, rel=1e-9)
        shift = diffc.shift_scale(*ratios) * (x0 - estimate)
        np.testing.assert_allclose(shift, (posterior - prior) / step.std, rtol=1e-9, atol=1e-12)


def test_zipf_exponents(case):
    # All of these steps have a single chunk.
    assert case["zipf_chunk_counts"].tolist() == [1, 1, 1, 1]
    ours = [zipf_exponent(divergence) for divergence in case["zipf_dkl_per_step"].tolist()]
    np.testing.assert_allclose(ours, case["zipf_s"], rtol=1e-12)
