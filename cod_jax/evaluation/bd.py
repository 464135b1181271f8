"""Bjontegaard deltas: what one curve saves against another, in rate at equal quality and in quality at equal rate.

Bjontegaard 2001, "Calculation of average PSNR differences between RD-curves" (VCEG-M33), with piecewise cubic
interpolation as in the reference sheets of JCT-VC and JVET.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError

METHOD = "pchip"
MIN_POINTS, MIN_SHARE = 4, 0.5


Numbers = Sequence[float] | npt.NDArray[np.floating]


class Delta(NamedTuple):
    """The difference of two curves; None where it says nothing, with the reason.

    Attributes:
        rate_percent: Difference in rate at equal quality; negative is a saving.
        metric_delta: Difference in quality at equal rate, in the unit of the metric; positive is better.
        overlap: The qualities that both curves reach.
        reason: Why a number is missing.
    """

    rate_percent: float | None = None
    metric_delta: float | None = None
    overlap: tuple[float, float] | None = None
    reason: str | None = None


def bd_delta(rates: Numbers, qualities: Numbers, other_rates: Numbers, other_qualities: Numbers) -> Delta:
    """Compare a curve with another: BD-rate and BD-metric.

    Numbers that rest on little are not computed: both curves need four points of different rates, whose quality rises
    with the rate. They must share half of the range of the shorter one, in quality for the rate and in log rate for the
    quality.

    Args:
        rates: Bits per pixel.
        qualities: The metric at these rates; higher is better.
        other_rates: Those of the curve that it is compared with.
        other_qualities: Its qualities.

    Raises:
        UserError: A curve has another number of rates than of qualities.
    """
    for ours, theirs in ((rates, qualities), (other_rates, other_qualities)):
        if len(ours) != len(theirs):
            raise UserError(f"expected a quality for each rate, got {len(ours)} rates and {len(theirs)} qualities")
    if importlib.util.find_spec("bjontegaard") is None:
        return Delta(reason="bjontegaard is not installed; pip install 'cod_jax[eval]'")
    import bjontegaard

    ours, others = _sorted(rates, qualities), _sorted(other_rates, other_qualities)
    for name, curve in (("the curve", ours), ("the other curve", others)):
        if len(curve) < MIN_POINTS:
            points = "1 point" if len(curve) == 1 else f"{len(curve)} points"
            return Delta(reason=f"{name} has {points}, and {MIN_POINTS} are needed")
        if np.any(curve[:, 0] <= 0) or np.any(np.diff(curve[:, 0]) <= 0):
            return Delta(reason=f"{name} has several points of one rate, or one of rate 0")
        if not np.all(np.isfinite(curve)) or np.any(np.diff(curve[:, 1]) <= 0):
            return Delta(reason=f"the quality of {name} does not rise with the rate everywhere")
    low, high = _common(ours[:, 1], others[:, 1])
    overlap = (low, high) if low < high else None
    options: dict[str, Any] = {"method": METHOD, "require_matching_points": False, "min_overlap": 0}
    pairs = (others[:, 0], others[:, 1], ours[:, 0], ours[:, 1])
    rate = delta = None
    reasons = []
    if (share := _share(ours[:, 1], others[:, 1])) >= MIN_SHARE:
        rate = float(np.asarray(bjontegaard.bd_rate(*pairs, **options)))
    else:
        reasons.append(f"the curves share {share:.0%} of the qualities of the shorter one")
    if (share := _share(np.log(ours[:, 0]), np.log(others[:, 0]))) >= MIN_SHARE:
        delta = float(np.asarray(bjontegaard.bd_psnr(*pairs, **options)))
    else:
        reasons.append(f"the curves share {share:.0%} of the rates of the shorter one")
    if reasons:
        reasons[-1] += f", and {MIN_SHARE:.0%} are needed"
    return Delta(rate, delta, overlap, "; ".join(reasons) or None)


def bd_rows(
    curves: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]], num_images: int
) -> list[dict[str, Any]]:
    """Compare every model, and every folder of results, with all other curves.

    Args:
        curves: As in the results.
        metrics: As in the results.
        num_images: How many pictures there are; rates at which one of them failed are left out.

    Returns:
        JSON values for the results.
    """
    return [
        {"curve": curve["name"], "against": other["name"], "metric": metric["name"]}
        | bd_delta(*_points(curve, metric, num_images), *_points(other, metric, num_images))._asdict()
        for curve in curves
        if curve["kind"] != "baseline"
        for other in curves
        if other is not curve
        for metric in metrics
    ]


def _points(curve: Mapping[str, Any], metric: Mapping[str, Any], num_images: int) -> tuple[list[float], list[float]]:
    """Return rates, and qualities of which higher ones are better; structural similarity in decibels."""
    means = [point["mean"] for point in curve["points"] if point["mean"]["num_images"] == num_images]
    means = [mean for mean in means if "bpp" in mean and metric["name"] in mean]
    sign = 1 if metric["better"] == "higher" else -1
    qualities = [sign * mean[metric["name"]] for mean in means]
    if metric["name"] == "ms_ssim":
        qualities = [-10 * math.log10(1 - value) if value < 1 else math.inf for value in qualities]
    return [mean["bpp"] for mean in means], qualities


def _sorted(rates: Numbers, qualities: Numbers) -> np.ndarray:
    return np.array(sorted(zip(rates, qualities, strict=True)), np.float64).reshape(-1, 2)


def _common(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    return float(max(a.min(), b.min())), float(min(a.max(), b.max()))


def _share(a: np.ndarray, b: np.ndarray) -> float:
    low, high = _common(a, b)
    return max(0.0, high - low) / float(min(np.ptp(a), np.ptp(b)))
