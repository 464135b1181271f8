"""Compare an evaluation with an earlier one: what got better or worse, in the mean and for each picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cod_jax.errors import UserError, WorkError

RATE: Mapping[str, Any] = {"name": "bpp", "title": "bits per pixel", "unit": "", "better": "lower"}


class Change(NamedTuple):
    """How a metric changed at one rate of one curve.

    Attributes:
        curve: Name of the curve.
        label: Label of the rate.
        metric: Name of the metric, or "bpp".
        num_images: Pictures that both evaluations measured.
        before: Mean of the earlier one over these.
        after: Mean of the later one.
        gain: Mean difference, positive where the later one is better.
        num_better: Pictures that got better.
        num_worse: Pictures that got worse.
        p_value: Of a paired two-sided t-test that nothing changed; None for a single picture.
        worst: The picture that lost most, "" if none did.
    """

    curve: str
    label: str
    metric: str
    num_images: int
    before: float
    after: float
    gain: float
    num_better: int
    num_worse: int
    p_value: float | None
    worst: str


def check_comparable(curves: Sequence[str], pictures: Mapping[str, str], earlier: Mapping[str, Any]) -> None:
    """Refuse, before anything is measured, an evaluation that has nothing in common with an earlier one.

    Args:
        curves: Names of the curves that will be measured.
        pictures: SHA-256 of each picture, by name.
        earlier: The content of the earlier results.json.

    Raises:
        UserError: No curve has the same name in both, or no picture is the same.
    """
    names = [curve["name"] for curve in earlier["curves"]]
    if not set(curves) & set(names):
        raise UserError(
            f"nothing can be compared with the earlier evaluation: this one has the curves {', '.join(curves)}, and "
            f"the earlier one has {', '.join(names) or 'none'}; name the model folders alike"
        )
    if not any(pictures.get(image["name"]) == image.get("sha256", "") for image in earlier["images"]):
        raise UserError(
            "nothing can be compared with the earlier evaluation: no picture has the same name and content in both; "
            "measure the same pictures"
        )


def check_losses(
    allowed: Mapping[str, float], metrics: Sequence[Mapping[str, Any]], earlier: Mapping[str, Any]
) -> None:
    """Refuse, before anything is measured, an allowed loss of what will not be compared.

    Args:
        allowed: The largest mean loss of each metric.
        metrics: What will be measured on each picture, as in the results.
        earlier: The content of the earlier results.json.

    Raises:
        UserError: A metric is not among those that both evaluations measure, in the same way.
    """
    known = [metric["name"] for metric in _comparable({"metrics": metrics}, earlier)[0]]
    if unknown := allowed.keys() - set(known):
        raise UserError(
            f"expected a loss of {', '.join(known)}, got {min(unknown)}; name what both evaluations measure in one way"
        )


def compare(
    results: Mapping[str, Any], earlier: Mapping[str, Any]
) -> tuple[list[Change], list[dict[str, Any]], list[str]]:
    """Compare curves of the same name at rates of the same label, on pictures that are the same to the byte.

    Args:
        results: The content of results.json.
        earlier: That of the earlier evaluation.

    Returns:
        The changes; a row per picture, rate and metric; and the metrics that both have and that are not comparable,
        because they are computed in another way.

    Raises:
        WorkError: The evaluations have nothing in common.
    """
    metrics, differing = _comparable(results, earlier)
    same = _same_pictures(results, earlier)
    changes: list[Change] = []
    rows: list[dict[str, Any]] = []
    for curve, label, before, after in _common_points(results, earlier):
        for metric in metrics:
            name, sign = metric["name"], 1 if metric["better"] == "higher" else -1
            pairs = {
                picture: (before[picture].get(name), after[picture].get(name))
                for picture in same
                if picture in before and picture in after
            }
            # The earlier file may hold anything in the place of a number.
            known = {picture: pair for picture, pair in pairs.items() if all(map(_is_number, pair))}
            if known:
                gains = {picture: sign * (b - a) for picture, (a, b) in known.items()}
                changes.append(_change(curve, label, name, known, gains))
                rows += [
                    {"curve": curve, "label": label, "metric": name, "name": picture, "before": a, "after": b}
                    | {"gain": gains[picture]}
                    for picture, (a, b) in known.items()
                ]
    if not changes:
        raise WorkError(
            f"the two evaluations have no picture, curve and rate in common: this one has {_rates(results)}, and the "
            f"earlier one has {_rates(earlier)}; measure the same pictures at the same rates"
        )
    return changes, rows, differing


def losses(changes: Sequence[Change], allowed: Mapping[str, float]) -> list[str]:
    """Return a sentence for each change that loses more than is allowed.

    Args:
        changes: See `compare`.
        allowed: The largest mean loss of each metric, in its unit; see `check_losses`.
    """
    return [
        f"{change.curve} {change.label}: {change.metric} went from {change.before:.6g} to {change.after:.6g}, a loss "
        f"of {-change.gain:.3g}, and {allowed[change.metric]:g} is allowed"
        for change in changes
        if change.metric in allowed and -change.gain > allowed[change.metric]
    ]


def summary(changes: Sequence[Change]) -> Iterator[str]:
    """Yield a sentence for each change, those that nothing happened to left out."""
    for change in changes:
        if change.num_better or change.num_worse:
            sure = "" if change.p_value is None else f", p = {change.p_value:.2g}"
            word = "better" if change.gain > 0 else "worse"
            yield (
                f"{change.curve} {change.label}: {change.metric} {change.before:.6g} to {change.after:.6g}, {word}; "
                f"{change.num_better} pictures better, {change.num_worse} worse{sure}"
            )


def only_earlier(results: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """Return the rates that only the earlier evaluation has, of curves that both have, such as "compact 8"."""
    new = {curve["name"]: {point["label"] for point in curve["points"]} for curve in results["curves"]}
    return [
        f"{curve['name']} {point['label']}"
        for curve in earlier["curves"]
        for point in curve["points"]
        if point["label"] not in new.get(curve["name"], {point["label"]})
    ]


def _rates(results: Mapping[str, Any]) -> str:
    """Return the curves of an evaluation with their rates."""
    curves = (f"{one['name']} ({', '.join(point['label'] for point in one['points'])})" for one in results["curves"])
    return ", ".join(curves) or "no curves"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _change(
    curve: str, label: str, name: str, pairs: Mapping[str, tuple[float, float]], gains: Mapping[str, float]
) -> Change:
    number = len(pairs)
    before, after = (math.fsum(values) / number for values in zip(*pairs.values(), strict=True))
    worst = min(gains, key=lambda picture: gains[picture])
    return Change(
        curve,
        label,
        name,
        number,
        before,
        after,
        math.fsum(gains.values()) / number,
        sum(gain > 0 for gain in gains.values()),
        sum(gain < 0 for gain in gains.values()),
        _p_value(list(gains.values())),
        worst if gains[worst] < 0 else "",
    )


def _p_value(gains: Sequence[float]) -> float | None:
    if len(gains) < 2:
        return None
    if len(set(gains)) == 1:  # the test divides by their spread
        return 1.0 if gains[0] == 0 else 0.0
    from scipy import stats

    test: Any = stats.ttest_1samp(gains, 0)
    return float(test.pvalue)


def _comparable(results: Mapping[str, Any], earlier: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return the rate and the metrics that are computed in the same way, and the names of the others."""
    old = {metric["name"]: metric for metric in earlier["metrics"]}
    both = [metric for metric in results["metrics"] if metric["name"] in old]
    how = ("protocol", "weights_sha256")
    same = [metric for metric in both if all(metric.get(key) == old[metric["name"]].get(key) for key in how)]
    return [RATE, *same], [metric["name"] for metric in both if metric not in same]


def _same_pictures(results: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    old = {image["name"]: image.get("sha256") for image in earlier["images"]}
    return [
        image["name"]
        for image in results["images"]
        if (digest := image.get("sha256")) is not None and old.get(image["name"]) == digest
    ]


def _common_points(
    results: Mapping[str, Any], earlier: Mapping[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield name, label, and the earlier and later values by picture."""
    old = {curve["name"]: {point["label"]: point for point in curve["points"]} for curve in earlier["curves"]}
    for curve in results["curves"]:
        for point in curve["points"]:
            before = old.get(curve["name"], {}).get(point["label"])
            if before is not None:
                earlier_images, images = ({image["name"]: image for image in one["images"]} for one in (before, point))
                yield curve["name"], point["label"], earlier_images, images
