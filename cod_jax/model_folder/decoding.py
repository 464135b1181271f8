"""Settings of decoding: steps, guidance and sampler.

Nothing heavy is imported here, so that commands check their options before they start JAX.
"""

import dataclasses
import numbers
from typing import Any, Literal, get_args

from cod_jax.errors import UserError

# The methods of `diffusion.samplers`.
Sampler = Literal["euler", "adams"]

MAX_STEPS = 1000
# Useful values are below 10. A value far above the limit would overflow to infinity.
MAX_GUIDANCE = 1000.0
MAX_SEED = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Settings that decide, with the symbols and the seed, which picture is decoded.

    Attributes:
        num_steps: Evaluations of the denoiser along the path from noise to picture. One step starts from zero noise:
            it gives the picture closest to the original, the same for every seed. More steps start from the seed's
            noise.
        guidance_scale: Classifier-free guidance; 1 switches it off. It has no effect on one step.
        sampler: Solver of the path, "euler" or "adams"; with one step they are the same.
    """

    num_steps: int = 1
    guidance_scale: float = 1.0
    sampler: Sampler = "euler"

    def __post_init__(self):
        checked_steps(self.num_steps)
        checked_guidance(self.guidance_scale)
        checked_sampler(self.sampler)

    def override(self, *, steps: Any = None, guidance: Any = None, sampler: Any = None) -> "DecodingConfig":
        """Return the settings with those that a user chose; None leaves a field as it is.

        Raises:
            UserError: A value is of another kind or out of range.
        """
        return DecodingConfig(
            self.num_steps if steps is None else checked_steps(steps),
            self.guidance_scale if guidance is None else checked_guidance(guidance),
            self.sampler if sampler is None else checked_sampler(sampler),
        )

    def summary(self) -> str:
        """Return the settings in words."""
        if self.num_steps == 1:
            return f"1 step; with more: {self.sampler}, guidance {self.guidance_scale:g}"
        return f"{self.num_steps} steps, {self.sampler}, guidance {self.guidance_scale:g}"


def checked_steps(steps: Any) -> int:
    """Return a number of steps that can be taken.

    Raises:
        UserError: It is not a whole number from 1 to 1000.
    """
    if not is_number(numbers.Integral, steps) or not 1 <= steps <= MAX_STEPS:
        raise UserError(f"expected the number of steps to be a whole number from 1 to {MAX_STEPS}, got {steps!r}")
    return int(steps)


def checked_guidance(guidance: Any) -> float:
    """Return a guidance scale that can be used.

    Raises:
        UserError: It is not a number from 0 to 1000.
    """
    # The comparison refuses NaN too.
    if not is_number(numbers.Real, guidance) or not 0 <= guidance <= MAX_GUIDANCE:
        raise UserError(f"expected guidance to be a number from 0 to {MAX_GUIDANCE:.0f}, got {guidance!r}")
    return float(guidance)


def checked_sampler(sampler: Any) -> Sampler:
    """Return the name of a sampler.

    Raises:
        UserError: It is unknown.
    """
    if sampler not in get_args(Sampler):
        raise UserError(f"expected sampler {' or '.join(get_args(Sampler))}, got {sampler!r}")
    return sampler


def checked_seed(seed: Any) -> int:
    """Return a seed that can be used.

    Raises:
        UserError: It is not a whole number from 0 to 2^63 - 1.
    """
    if not is_number(numbers.Integral, seed) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"expected seed to be a whole number from 0 to 2^63 - 1, got {seed!r}")
    return int(seed)


def is_number(kind: type, value: Any) -> bool:
    """Return whether a value is a number of a kind: `numbers.Integral` or `numbers.Real`.

    NumPy's numbers count, truth values do not.
    """
    return isinstance(value, kind) and not isinstance(value, bool)
