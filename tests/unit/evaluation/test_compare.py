"""Two evaluations side by side."""

from typing import Any

import pytest
from scipy import stats

from cod_jax.errors import UserError, WorkError
from cod_jax.evaluation.compare import check_comparable, check_losses, compare, losses, only_earlier, summary


def results(psnr: dict[str, float | None], bpp: float = 0.1, **metric: Any) -> dict[str, Any]:
    about = {"name": "psnr", "better": "higher", "protocol": "as usual", "weights_sha256": None, **metric}
    rows = [{"name": name, "bpp": bpp, "psnr": value} for name, value in psnr.items()]
    return {
        "images": [{"name": name, "sha256": name * 4} for name in psnr],
        "metrics": [about],
        "curves": [{"name": "ours", "points": [{"label": "1", "images": rows}]}],
    }


BEFORE = results({"a": 30.0, "b": 31.0, "c": 32.0, "d": None})


def test_every_picture_counts_in_a_paired_test():
    changes, rows, differing = compare(results({"a": 30.5, "b": 30.9, "c": 32.0, "d": 33.0}, bpp=0.09), BEFORE)
    rate, change = changes
    assert (change.metric, change.num_images, change.num_better, change.num_worse) == ("psnr", 3, 1, 1)
    assert (change.before, change.after) == (31, pytest.approx(93.4 / 3))
    assert change.gain == pytest.approx(0.4 / 3)
    assert change.worst == "b"
    assert change.p_value == pytest.approx(stats.ttest_rel([30.5, 30.9, 32], [30, 31, 32]).pvalue)
    assert (rate.metric, rate.num_images, rate.num_better, rate.p_value) == ("bpp", 4, 4, pytest.approx(0, abs=1e-9))
    assert [row["gain"] for row in rows if row["metric"] == "psnr"] == [0.5, pytest.approx(-0.1), 0]
    assert differing == []
    assert list(summary(changes))[1].startswith("ours 1: psnr 31 to 31.1333, better; 1 pictures better, 1 worse, p = 0")


def test_a_loss_beyond_what_is_allowed_is_named():
    changes, _, _ = compare(results({"a": 29.9, "b": 30.9, "c": 31.9}), BEFORE)
    assert losses(changes, {"psnr": 0.2, "bpp": 0}) == []
    (sentence,) = losses(changes, {"psnr": 0.05})
    assert sentence == "ours 1: psnr went from 31 to 30.9, a loss of 0.1, and 0.05 is allowed"


def test_a_loss_of_what_is_not_compared_is_refused_before_it_is_measured():
    metrics = BEFORE["metrics"]
    check_losses({"psnr": 0.1, "bpp": 0}, metrics, BEFORE)
    with pytest.raises(UserError, match="expected a loss of bpp, psnr, got ssim; name what both evaluations measure"):
        check_losses({"ssim": 0.1}, metrics, BEFORE)
    with pytest.raises(UserError, match="expected a loss of bpp, got psnr"):
        check_losses({"psnr": 0.1}, results({}, protocol="in another way")["metrics"], BEFORE)


@pytest.mark.parametrize("value", ["high", True, [], float("nan")])
def test_what_is_no_number_in_an_earlier_file_is_not_compared(value: Any):
    earlier = results({"a": value, "b": 31.0})
    del earlier["metrics"][0]["weights_sha256"], earlier["images"][0]["sha256"]
    changes, _, _ = compare(results({"a": 30.0, "b": 31.0}), earlier)
    assert {change.metric: change.num_images for change in changes} == {"bpp": 1, "psnr": 1}


def test_only_what_is_the_same_is_compared():
    changes, _, differing = compare(results({"a": 30.5, "b": 31.0}, protocol="in another way"), BEFORE)
    assert [change.metric for change in changes] == ["bpp"]
    assert differing == ["psnr"]
    other = results({"a": 30.5, "b": 31.0})
    other["images"][1]["sha256"] = "another picture"
    assert compare(other, BEFORE)[0][1].num_images == 1
    with pytest.raises(WorkError, match=r"in common: this one has ours \(1\), and the earlier one has ours \(1\)"):
        compare(results({"x": 30.5}), BEFORE)


def test_rates_that_are_gone_are_named():
    earlier = results({"a": 30.0})
    more = earlier["curves"][0]["points"][0]
    earlier["curves"] += [{"name": "another", "points": [more]}]
    earlier["curves"][0]["points"] += [{**more, "label": "2"}]
    assert only_earlier(BEFORE, earlier) == ["ours 2"]
    assert only_earlier(earlier, BEFORE) == []


def test_what_cannot_be_compared_is_refused_before_it_is_measured():
    same = {name: name * 4 for name in "abcd"}
    check_comparable(["mine", "ours"], {"a": same["a"], "x": ""}, BEFORE)
    with pytest.raises(UserError, match="this one has the curves mine, and the earlier one has ours; name the model"):
        check_comparable(["mine"], same, BEFORE)
    with pytest.raises(UserError, match="no picture has the same name and content in both"):
        check_comparable(["ours"], {"a": "another picture", "x": same["a"]}, BEFORE)
