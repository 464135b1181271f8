"""Plots of results: every metric over the rate, and perception over distortion."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

# The first of these that was measured stands for what looks natural.
PERCEPTION = ("fid_64", "fid_256", "dists", "lpips_alex", "wasserstein")


def draw(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Return SVG files by name: `rate_METRIC.svg`, and `distortion_perception.svg`.

    Equal results give equal files.

    Args:
        results: The content of results.json.
    """
    metrics = {metric["name"]: metric for metric in results["metrics"]}
    rate = {"name": "bpp", "title": "bits per pixel", "unit": ""}
    drawn = {f"rate_{name}.svg": _figure(results["curves"], rate, metric) for name, metric in metrics.items()}
    perception = next((metrics[name] for name in PERCEPTION if name in metrics), None)
    if perception is not None:
        drawn["distortion_perception.svg"] = _figure(results["curves"], metrics["psnr"], perception)
    return drawn


def _figure(curves: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any]) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    is_log = x["name"] == "bpp", y["better"] == "lower"
    # Names of elements are random otherwise.
    with mpl.rc_context({"svg.hashsalt": "cod_jax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.add_subplot()
        for curve in curves:
            found = [(point["mean"].get(x["name"]), point["mean"].get(y["name"])) for point in curve["points"]]
            pairs = [pair for pair in found if all(map(can_be_drawn, pair, is_log))]
            if pairs:
                is_ours = curve["kind"] != "baseline"
                axes.plot(
                    *zip(*sorted(pairs), strict=True),
                    marker="o",
                    markersize=5 if is_ours else 3,
                    linewidth=2 if is_ours else 1,
                    linestyle="-" if curve.get("about", {}).get("scale", 1) == 1 else "--",
                    label=curve["title"],
                )
        axes.set(xlabel=axis_title(x), ylabel=axis_title(y))
        if axes.lines:
            axes.set(xscale="log" if is_log[0] else "linear", yscale="log" if is_log[1] else "linear")
            axes.legend(fontsize=8)
        axes.grid(visible=True, which="both", alpha=0.25)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def can_be_drawn(value: float | None, is_log: bool = False) -> bool:
    """Return whether a value has a place on an axis: a picture that came back without any error may have none."""
    return value is not None and math.isfinite(value) and not (is_log and value <= 0)


def axis_title(metric: Mapping[str, Any]) -> str:
    """Return the title of an axis: name, unit and better direction of a metric."""
    unit = f", {metric['unit']}" if metric["unit"] else ""
    better = {"higher": " (higher is better)", "lower": " (lower is better)"}.get(metric.get("better", ""), "")
    return f"{metric['title']}{unit}{better}"
