"""Bjontegaard deltas."""

import pytest

from cod_jax.errors import UserError
from cod_jax.evaluation.bd import bd_delta, bd_rows

# The JCT-VC reference sheet's own examples, with the BD-rates that it shows; also among the tests of Netflix's VMAF.
PUBLISHED = [
    (
        (108048.8736, 61279.976, 33905.6656, 18883.6928),
        (43.6471, 40.3953, 37.247, 34.2911),
        (108061.2784, 61299.9936, 33928.7472, 18910.912),
        (43.6768, 40.4232, 37.2761, 34.3147),
        -0.465215420752807,
    ),
    (
        (40433.8848, 7622.7456, 2394.488, 1017.6184),
        (37.5761, 35.3756, 33.8977, 32.0603),
        (40370.12, 7587.0024, 2390.0944, 1017.0984),
        (37.5982, 35.4025, 33.9194, 32.0822),
        -1.8779823450567612,
    ),
]
RATES, QUALITIES = (0.1, 0.2, 0.4, 0.8), (25.0, 28.0, 31.0, 34.0)


@pytest.mark.parametrize(("rates", "qualities", "new_rates", "new_qualities", "expected"), PUBLISHED)
def test_published_numbers(rates, qualities, new_rates, new_qualities, expected):
    found = bd_delta(new_rates, new_qualities, rates, qualities)
    assert found.rate_percent == pytest.approx(expected, abs=1e-4)
    assert found.reason is None
    assert found.metric_delta is not None
    assert found.metric_delta > 0


def test_a_curve_that_needs_half_the_rate():
    found = bd_delta([rate / 2 for rate in RATES], QUALITIES, RATES, QUALITIES)
    assert found.rate_percent == pytest.approx(-50)
    assert found.metric_delta == pytest.approx(3)
    assert found.overlap == (25, 34)
    worse = bd_delta(RATES, [quality - 3 for quality in QUALITIES], RATES, QUALITIES)
    assert worse.rate_percent == pytest.approx(100)
    assert worse.metric_delta == pytest.approx(-3)


@pytest.mark.parametrize(
    ("rates", "qualities", "reason"),
    [
        (RATES[:3], QUALITIES[:3], "the curve has 3 points, and 4 are needed"),
        (RATES, (25, 28, 27.5, 34), "the quality of the curve does not rise with the rate everywhere"),
        ((0.1, 0.2, 0.2, 0.4), QUALITIES, "the curve has several points of one rate, or one of rate 0"),
        ((0.2, 0.2, 0.2, 0.2), QUALITIES, "the curve has several points of one rate, or one of rate 0"),
        ((0.0, 0.1, 0.2, 0.4), QUALITIES, "the curve has several points of one rate, or one of rate 0"),
        (RATES, (35, 36, 37, 38), "the curves share 0% of the qualities of the shorter one, and 50% are needed"),
        (RATES, (31.5, 33, 36, 38), "the curves share 38% of the qualities of the shorter one, and 50% are needed"),
    ],
)
def test_what_says_nothing_is_not_computed(rates, qualities, reason):
    found = bd_delta(rates, list(map(float, qualities)), RATES, QUALITIES)
    assert found.rate_percent is None
    assert found.reason == reason


def test_rates_that_do_not_overlap_give_no_difference_in_quality():
    found = bd_delta([rate / 20 for rate in RATES], QUALITIES, RATES, QUALITIES)
    assert found.rate_percent == pytest.approx(-95)
    assert found.metric_delta is None
    assert found.reason == "the curves share 0% of the rates of the shorter one, and 50% are needed"


def curve(name: str, kind: str, factor: float) -> dict:
    points = [
        {"mean": {"num_images": 2, "bpp": rate * factor, "psnr": quality, "mse": -quality, "ms_ssim": quality / 40}}
        for rate, quality in zip(RATES, QUALITIES, strict=True)
    ]
    # A rate at which one picture failed.
    points.append({"mean": {"num_images": 1, "bpp": 9.0, "psnr": 1.0, "mse": 1.0, "ms_ssim": 0.1}})
    return {"name": name, "kind": kind, "points": points}


def test_models_are_compared_with_everything_else():
    metrics = [{"name": "psnr", "better": "higher"}, {"name": "mse", "better": "lower"}]
    metrics.append({"name": "ms_ssim", "better": "higher"})
    curves = [curve("ours", "model", 0.5), curve("theirs", "files", 1.0), curve("jpeg", "baseline", 2.0)]
    rows = bd_rows(curves, metrics, 2)
    compared = {(row["curve"], row["against"]) for row in rows}
    assert compared == {("ours", "theirs"), ("ours", "jpeg"), ("theirs", "ours"), ("theirs", "jpeg")}
    for row in rows:
        expected = {("ours", "theirs"): -50, ("theirs", "ours"): 100, ("theirs", "jpeg"): -50}
        assert row["rate_percent"] == pytest.approx(expected.get((row["curve"], row["against"]), -75)), row


def test_a_rate_without_a_quality_is_refused():
    with pytest.raises(UserError, match="expected a quality for each rate, got 4 rates and 3 qualities"):
        bd_delta(RATES, QUALITIES, RATES, QUALITIES[:3])
