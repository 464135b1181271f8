"""Which checkpoint of a run is the best: by the validation loss, or by another number of the validation."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cod_jax.errors import UserError

DEFAULT = "loss"
# The key of the loss in checkpoints, whose other numbers have their own names. Version 0.1 stored nothing else.
LOSS = "validation_loss"
# Numbers of which lower ones are better, and those of which higher ones are. Others, such as a texture, rank nothing.
LOWER = ("loss", "loss/TERM", "estimated_bits_per_pixel", "bits_per_symbol")
HIGHER = (
    *(f"{name}_{picture}" for name in ("psnr", "ms_ssim") for picture in ("one_step", "sampled")),
    *("codebook/usage", "codebook/perplexity"),
)
_LEVEL = re.compile(r"^quality_\d+/")


def direction(name: str) -> int:
    """Return 1 if a higher number of the validation is better, -1 if a lower one is, 0 if neither.

    Args:
        name: Its name, also at a quality level: "quality_3/psnr_one_step".
    """
    name = _LEVEL.sub("", name)
    if name in HIGHER or name.startswith("higher/"):
        return 1
    return -1 if name in LOWER or name.startswith(("lower/", "loss/")) else 0


def rank(stored: Mapping[str, Any] | None, best_by: str) -> float:
    """Return a number that is lower for a better checkpoint, infinity for one without the number that ranks it.

    Args:
        stored: The numbers of its validation by name, as checkpoints or validation.jsonl have them.
        best_by: The name of the number that ranks it.
    """
    found = stored or {}
    value = found.get(best_by, found.get(LOSS) if best_by == DEFAULT else None)
    return math.inf if value is None or not math.isfinite(value) else -direction(best_by) * value


def best_by_of(config: Mapping[str, Any]) -> str:
    """Return what ranks the checkpoints of a run, given its stored settings, which may be those of an older version."""
    checkpoint = config.get("checkpoint")
    return checkpoint.get("best_by", DEFAULT) if isinstance(checkpoint, Mapping) else DEFAULT


def check_direction(best_by: str) -> None:
    """Refuse a name that ranks nothing in any run.

    Raises:
        UserError: With the names that there are.
    """
    if not direction(best_by):
        raise UserError(
            f"expected best_by among {', '.join(LOWER + HIGHER)}, one of them at a level as in "
            f"quality_3/psnr_one_step, or lower/NAME or higher/NAME of one of validation.metrics, got {best_by!r}"
        )


def check_measured(best_by: str, names: Iterable[str]) -> None:
    """Refuse a name that the validation of a run does not measure.

    Args:
        best_by: The name.
        names: What it measures.

    Raises:
        UserError: With the names that can rank checkpoints of this run.
    """
    names = list(names)
    if best_by not in names:
        raise UserError(
            f"expected checkpoint.best_by among what the validation of this run measures, "
            f"{', '.join(name for name in names if direction(name))}, got {best_by!r}"
        )
