"""From the records of an evaluation to results.json and its tables."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.evaluation.compare import Change
from cod_jax.evaluation.metric_table import Described, Metric, Number, summarize
from cod_jax.losses.similarity import SCALE_WEIGHTS

TABLE_FILE, SUMMARY_FILE, BD_FILE, DIAL_FILE = "per_image.csv", "summary.csv", "bd.csv", "dial.csv"
# Seconds differ from run to run, so no table has them.
TIMES = ("encode_s", "decode_s")
PROTOCOL = {
    "images": "whole pictures as 8-bit sRGB, without a crop or a resize; the decoded ones from the PNG that was "
    "written",
    "rate": "bpp is 8 times the length of the file, header and checksum counted, over the pixels of the original; the "
    "mean is that of the pictures' values, bpp_pooled all bits over all pixels; payload_bpp leaves out the header and "
    "checksum of .cod files",
    "bd": "Bjontegaard deltas of the means, with piecewise cubic interpolation (PCHIP) of the logarithm of bpp; "
    "MS-SSIM enters as -10 log10(1 - x), and metrics of which lower ones are better with the other sign",
    "mean": "mean over pictures with equal weights; pictures that failed are left out and listed",
    "time": "seconds of encoding a picture in memory, entropy coding included, and of decoding it, in separate "
    "processes; reading and writing files is not counted, nor is compiling, because the first picture of each size is "
    "coded once before",
    "memory": "of models: largest resident memory of the process that encoded, and of the one that decoded",
}
POOLED_PSNR = {
    "name": "psnr_pooled",
    "title": "PSNR of the pooled error",
    "unit": "dB",
    "better": "higher",
    "protocol": "10 log10(255^2 / e), e the squared error over all pixels of all pictures; lower than the mean of PSNR",
    "weights_sha256": None,
}


def describe_metrics(table: Sequence[Described]) -> list[dict[str, Any]]:
    """Return name, title, unit, better direction, protocol and hash of the weights of each metric that is compared."""
    listed = []
    for metric in table:
        if metric.higher_is_better is None or not metric.shown:
            continue
        listed.append(
            {
                "name": metric.name,
                "title": metric.title or metric.name,
                "unit": metric.unit,
                "better": "higher" if metric.higher_is_better else "lower",
                "protocol": metric.description,
                "weights_sha256": metric.weights_sha256,
            }
        )
        if metric.name == "psnr":
            listed.append(POOLED_PSNR)
    return listed


def row_of(num_pixels: int, coded: Mapping[str, Any], decoded: Mapping[str, Any], measured: Mapping[str, Any]) -> Any:
    """Return the values of one picture at one rate from its three records.

    Args:
        num_pixels: Width times height.
        coded: The record of encoding.
        decoded: The record of decoding.
        measured: The record of measuring.
    """
    row: dict[str, Any] = {}
    for name, rate in (("bytes", "bpp"), ("payload_bytes", "payload_bpp")):
        if coded.get(name) is not None:
            row |= {name: coded[name], rate: 8 * coded[name] / num_pixels}
    return row | dict(measured) | {name: value for name, value in {**coded, **decoded}.items() if name in TIMES}


def mean_of(rows: Sequence[Mapping[str, Any]], num_pixels: Sequence[int], table: Sequence[Metric]) -> dict[str, Number]:
    """Return the values of a rate from those of its pictures, of which there is at least one.

    Args:
        rows: See `row_of`.
        num_pixels: Width times height of each.
        table: The metrics.
    """
    mean: dict[str, Number] = {"num_images": len(rows)}
    for name in ("bpp", "payload_bpp"):
        if all(name in row for row in rows):
            mean[name] = math.fsum(row[name] for row in rows) / len(rows)
    if "bpp" in mean:
        mean["bpp_pooled"] = 8 * sum(row["bytes"] for row in rows) / sum(num_pixels)
    mean |= summarize(rows, table)
    error = math.fsum(row["mse"] * number for row, number in zip(rows, num_pixels, strict=True)) / sum(num_pixels)
    mean["psnr_pooled"] = 10 * math.log10(255**2 / error) if error else math.inf
    for name in TIMES:
        if all(name in row for row in rows):
            mean[name] = math.fsum(row[name] for row in rows) / len(rows)
    return mean


def few_scales_note(results: Mapping[str, Any]) -> str:
    """Return a sentence about pictures that are too small for the usual MS-SSIM; "" where there are none."""
    small = {
        image["name"]
        for _, point in _points(results)
        for image in point["images"]
        if isinstance(scales := image.get("ms_ssim_scales"), int) and scales < len(SCALE_WEIGHTS)
    }
    if not small:
        return ""
    return (
        f"Pictures with a side below 161 pixels, measured at fewer than five scales: {len(small)} of "
        f"{len(results['images'])}. Such values are not comparable with the usual ones."
    )


def per_image_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a dict per curve, rate and picture: their names, the picture's size, and all values.

    Args:
        results: The content of results.json, as `read_results` returns it.
    """
    sizes = {image["name"]: image for image in results["images"]}
    return [
        {
            "curve": curve["name"],
            "label": point["label"],
            "width": sizes[image["name"]]["width"],
            "height": sizes[image["name"]]["height"],
            **image,
        }
        for curve, point in _points(results)
        for image in point["images"]
    ]


def mean_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a dict per curve and rate: their names, and the means over pictures.

    Args:
        results: The content of results.json, as `read_results` returns it.
    """
    return [{"curve": curve["name"], "label": point["label"], **point["mean"]} for curve, point in _points(results)]


def per_image_table(results: Mapping[str, Any]) -> str:
    """Return the CSV table with a row per curve, rate and picture."""
    first = ("curve", "label", "name", "width", "height")
    return _csv(first, per_image_rows(results), {*TIMES, "decoded", "file"})


def summary_table(results: Mapping[str, Any]) -> str:
    """Return the CSV table with a row per curve and rate."""
    return _csv(("curve", "label"), mean_rows(results), set(TIMES))


def bd_table(results: Mapping[str, Any]) -> str:
    """Return the CSV table of Bjontegaard deltas."""
    rows = [{**row, "overlap": " to ".join(map(str, row["overlap"] or ()))} for row in results["bd"]]
    return _csv(("curve", "against", "metric", "rate_percent", "metric_delta", "overlap", "reason"), rows, set())


def dial_table(results: Mapping[str, Any]) -> str:
    """Return the CSV table with a row per model, rate and way of decoding."""
    return _csv((), results["dial"], set())


def write_changes(folder: Path, changes: Sequence[Change], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write changes.csv, a row per curve, rate and metric, and changes_per_image.csv."""
    tables = {"changes.csv": [change._asdict() for change in changes], "changes_per_image.csv": rows}
    for name, table in tables.items():
        files.write_bytes(folder / name, _csv((), table, set()).encode(errors="surrogateescape"))


def as_json(results: Mapping[str, Any]) -> str:
    """Return results as JSON, in which infinite numbers are null."""
    return json.dumps(_finite(results), indent=1, allow_nan=False) + "\n"


def _points(results: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return ((curve, point) for curve in results["curves"] for point in curve["points"])


def _csv(first: Sequence[str], rows: Sequence[Mapping[str, Any]], left_out: set[str]) -> str:
    """Return rows as CSV; columns are in the order in which they appear, after those that come first."""
    columns = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    buffer = io.StringIO()
    wanted = [name for name in columns if name not in left_out]
    writer = csv.DictWriter(buffer, wanted, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
