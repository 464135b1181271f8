"""Distortion and perception of one model: what several numbers of steps and guidances make of the same files."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cod_jax import images
from cod_jax.evaluation.plots import PERCEPTION, axis_title, can_be_drawn
from cod_jax.evaluation.results import TIMES

DISTORTION = ("psnr", "ms_ssim")
TEXTURE = {"name": "texture", "title": "texture", "unit": "1 is as much as in the original", "better": ""}
# Size of the sheet of sample pictures: how many, and the longest side of what is cut out of each.
MAX_SAMPLES, MAX_SIDE = 4, 320
_MARGIN, _TEXT_SIZE = 6, 15


class Line(NamedTuple):
    """Points of one model at one rate, by the number of steps.

    Attributes:
        label: Of the rate.
        guidance: That of the points with several steps.
        rows: See `dial_rows`.
    """

    label: str
    guidance: float
    rows: list[dict[str, Any]]


def dial_rows(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a dict per model, rate and way of decoding, of models that decode the same files in several ways.

    Args:
        curves: Those of the results.

    Returns:
        Model, curve, label of the rate, steps, guidance, sampler and seed, and the means over pictures.
    """
    return [
        {
            "model": curve["about"]["variant_of"],
            "curve": curve["name"],
            "label": point["label"],
            **{name: point["settings"].get(name) for name in ("steps", "guidance", "sampler", "seed")},
            **{name: value for name, value in point["mean"].items() if name not in TIMES},
        }
        for curve in _variants(curves)
        for point in curve["points"]
        if point["mean"]["num_images"]
    ]


def lines(rows: Sequence[dict[str, Any]], model: str) -> list[Line]:
    """Return the lines of a model, one for each rate and guidance; one step, which has no guidance, is on all of them.

    Args:
        rows: See `dial_rows`.
        model: Its name in them.
    """
    own = [row for row in rows if row["model"] == model]
    labels = list(dict.fromkeys(row["label"] for row in own))
    guidances = list(dict.fromkeys(row["guidance"] for row in own if row["steps"] > 1))
    found = []
    for label in labels:
        for guidance in guidances:
            chosen = [
                row for row in own if row["label"] == label and (row["steps"] == 1 or row["guidance"] == guidance)
            ]
            found.append(Line(label, guidance, sorted(chosen, key=lambda row: row["steps"])))
    return found


def draw_dial(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Return an SVG file for each model, `dial_MODEL.svg`: PSNR and MS-SSIM against perception and texture.

    Args:
        results: The content of results.json.
    """
    measured = {metric["name"]: metric for metric in results["metrics"]}
    columns = [measured[name] for name in PERCEPTION if name in measured] + [TEXTURE]
    shown = [measured[name] for name in DISTORTION if name in measured]
    models = dict.fromkeys(row["model"] for row in results["dial"])
    return {f"dial_{model}.svg": _figure(lines(results["dial"], model), shown, columns) for model in models}


def _figure(found: Sequence[Line], rows: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]]) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(line.label for line in found))
    guidances = list(dict.fromkeys(line.guidance for line in found))
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(labels)))
    with mpl.rc_context({"svg.hashsalt": "cod_jax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6 * len(columns), 4.8 * len(rows)), layout="constrained")
        for axes, (x, y) in zip(
            figure.subplots(len(rows), len(columns), squeeze=False).flat,
            ((x, y) for x in rows for y in columns),
            strict=True,
        ):
            for line in found:
                all_points = [(row.get(x["name"]), row.get(y["name"]), row["steps"]) for row in line.rows]
                points = [one for one in all_points if can_be_drawn(one[0]) and can_be_drawn(one[1])]
                axes.plot(
                    [across for across, _, _ in points],
                    [up for _, up, _ in points],
                    marker="o",
                    markersize=4,
                    color=colours[labels.index(line.label)],
                    linestyle=("-", "--", ":", "-.")[guidances.index(line.guidance) % 4],
                    label=_title_of(line, several=len(guidances) > 1),
                )
                for across, up, steps in points:
                    axes.annotate(str(steps), (across, up), xytext=(4, 4), textcoords="offset points", fontsize=8)
            axes.set(xlabel=axis_title(x), ylabel=axis_title(y))
            axes.grid(visible=True, alpha=0.25)
        figure.axes[0].legend(fontsize=8, title="numbers: steps", title_fontsize=8)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _title_of(line: Line, *, several: bool) -> str:
    return f"{line.rows[0]['bpp']:.4f} bits per pixel" + (f", guidance {line.guidance:g}" if several else "")


def sample_sheets(results: Mapping[str, Any], source: Path, folder: Path) -> dict[str, bytes]:
    """Return a PNG for each model, `dial_MODEL.png`: originals and what each way of decoding makes of one file.

    It has the centre of up to four pictures, evenly from the first to the last, at the rate in the middle.

    Args:
        results: The content of results.json.
        source: Folder of the originals.
        folder: Folder of the evaluation.
    """
    sheets = {}
    for model in dict.fromkeys(row["model"] for row in results["dial"]):
        variants = [curve for curve in _variants(results["curves"]) if curve["about"]["variant_of"] == model]
        middle = (len(variants[0]["points"]) - 1) // 2
        decoded = [{row["name"]: row["decoded"] for row in curve["points"][middle]["images"]} for curve in variants]
        names = [name for name in decoded[0] if all(name in one for one in decoded)]
        if not names:
            continue
        chosen = [names[round(place)] for place in np.linspace(0, len(names) - 1, min(len(names), MAX_SAMPLES))]
        titles = ["original", *(curve["title"].removeprefix(f"{model} (").removesuffix(")") for curve in variants)]
        rows = [[source / name, *(folder / one[name] for one in decoded)] for name in chosen]
        sheets[f"dial_{model}.png"] = _sheet(titles, [[_centre(path) for path in row] for row in rows])
    return sheets


def _variants(curves: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the curves of models that decode the same files in several ways."""
    return (curve for curve in curves if "variant_of" in curve["about"])


def _centre(path: Path) -> np.ndarray:
    """Return the centre of a picture, at most `MAX_SIDE` pixels high and wide."""
    pixels = images.to_uint8_rgb(path, warn=False)
    top, left = (max(0, size - MAX_SIDE) // 2 for size in pixels.shape[:2])
    return pixels[top : top + MAX_SIDE, left : left + MAX_SIDE]


def _sheet(titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> bytes:
    """Return pictures as one PNG, with titles above the columns."""
    font = ImageFont.load_default(_TEXT_SIZE)
    texts = max(round(font.getlength(title)) for title in titles)
    width = max(texts, *(row[0].shape[1] for row in rows)) + _MARGIN
    heights = [row[0].shape[0] + _MARGIN for row in rows]
    top = _TEXT_SIZE + 2 * _MARGIN
    sheet = Image.new("RGB", (_MARGIN + width * len(titles), top + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((_MARGIN + width * column, _MARGIN), title, fill="black", font=font)
    for number, row in enumerate(rows):
        for column, pixels in enumerate(row):
            sheet.paste(Image.fromarray(pixels), (_MARGIN + width * column, top + sum(heights[:number])))
    return images.encode(np.asarray(sheet), "PNG")
