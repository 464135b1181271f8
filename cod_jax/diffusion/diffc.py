"""Steps of the reverse diffusion as DiffC codes them (Vonderfecht and Liu 2025); see docs/diffc.md.

The state x has variance about 1: x = sqrt(a) x0 + sqrt(1 - a) noise. With the signal-to-noise ratio s = snr^2 is
a = s / (1 + s), and snr = t / (1 - t) for the timestep t of the rectified flow, whose state is x sqrt(t^2 + (1 - t)^2).
"""

import math
from typing import NamedTuple


class Transition(NamedTuple):
    """Weights of a step: the mean is estimate * x0 + state * x, and the noise has the standard deviation std."""

    estimate: float
    state: float
    std: float


def signal_power(snr_squared: float) -> float:
    """Return a, the part of the state's variance that is signal."""
    return snr_squared / (1 + snr_squared)


def transition(snr_squared: float, after: float) -> Transition:
    """Return the step of q(x_after | x, x0), or of the prior with an estimate of x0 (Ho et al. 2020, equation 7).

    Args:
        snr_squared: Signal-to-noise ratio of the state x; 0 is pure noise.
        after: That of the next state, which is larger.
    """
    a, b = signal_power(snr_squared), signal_power(after)
    ratio = a / b
    return Transition(
        estimate=math.sqrt(b) * (1 - ratio) / (1 - a),
        state=math.sqrt(ratio) * (1 - b) / (1 - a),
        std=math.sqrt((1 - b) / (1 - a) * (1 - ratio)),
    )


def flow_time(snr_squared: float) -> float:
    """Return the timestep t of the rectified flow, 0 for noise, below 1."""
    snr = math.sqrt(snr_squared)
    return snr / (1 + snr)


def flow_scale(snr_squared: float) -> float:
    """Return what turns a state into that of the rectified flow, sqrt(t^2 + (1 - t)^2)."""
    t = flow_time(snr_squared)
    return math.hypot(t, 1 - t)


def shift_scale(snr_squared: float, after: float) -> float:
    """Return the factor of x0 - estimate that gives the posterior's mean in units of the prior's noise.

    It is estimate / std of the transition, which is the root of the difference of the ratios.
    """
    return math.sqrt(after - snr_squared)


def kl_bits(squared_error: float, snr_squared: float, after: float) -> float:
    """Return the Kullback-Leibler divergence of posterior and prior of a step, in bits.

    Args:
        squared_error: |x0 - estimate|^2, summed over all values.
        snr_squared: Signal-to-noise ratio of the state.
        after: That of the next state.
    """
    return 0.5 * squared_error * (after - snr_squared) / math.log(2)
