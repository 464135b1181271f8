"""Choice of the default number of decoding steps of a trained model, from the last validation of its weights."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

# A picture sampled from the right distribution has twice the squared error of the mean picture, which is 3 dB
# (Blau and Michaeli 2018, theorem 2). Guidance costs a little more.
LARGEST_LOSS_DB = 4.0
_PSNR, _TEXTURE = ("psnr_one_step", "psnr_sampled"), ("texture", "texture_one_step", "texture_sampled")


class Choice(NamedTuple):
    """Default steps and guidance of a model.

    Attributes:
        steps: Number of steps, or None for one.
        guidance: Guidance that goes with several steps, or None.
        reason: Why, as part of a sentence.
    """

    steps: int | None
    guidance: float | None
    reason: str


def choose_decoding(settings: Mapping[str, Any], measured: Mapping[str, float]) -> Choice:
    """Choose between one step and the sampler's settings of the run's validation.

    Several steps serve if their pictures have a texture nearer to that of the originals, and a PSNR that is at most
    `LARGEST_LOSS_DB` below that of one step. A model that was not trained long enough fails one of the two.

    Args:
        settings: Settings of the run's validation, "num_sampling_steps" and "guidance_scale".
        measured: Results of the validation of these weights by name, as `Validator` returns them; {} if there was none.
    """
    if any(not math.isfinite(measured.get(name, math.nan)) for name in (*_PSNR, *_TEXTURE)):
        return Choice(None, None, "no validation measured more steps")
    one_step, sampled = (measured[name] for name in _PSNR)
    original, *textures = (max(measured[name], 1e-9) for name in _TEXTURE)
    distances = [abs(math.log(texture / original)) for texture in textures]
    steps, guidance = int(settings["num_sampling_steps"]), float(settings["guidance_scale"])
    reason = (
        f"{steps} steps with guidance {guidance:g} had {sampled:.2f} dB and {textures[1] / original:.0%} of the "
        f"texture, one step {one_step:.2f} dB and {textures[0] / original:.0%}, on the validation pictures"
    )
    serves = steps > 1 and sampled >= one_step - LARGEST_LOSS_DB and distances[1] < distances[0]
    return Choice(steps, guidance, reason) if serves else Choice(None, None, reason)
