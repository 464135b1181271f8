"""The report of the demo: the included model beside other codecs at the same bytes, and after fine-tuning."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from cod_jax import images
from cod_jax.evaluation import metrics
from demo.other_codecs import OPTIONS, Coded, code_within
from demo.pages import Report

OURS = "cod_jax"
CODECS = (OURS, *OPTIONS)
# Random crops at random qualities make the loss of two steps differ by more than a short training gains.
ALLOWED_LOSS_SHARE = 1.1
# Of the pictures in the README, in pixels; at this size they are not scaled down on the page.
CROP = (264, 176)


class Comparison(NamedTuple):
    """One photograph in several codecs at the same bytes.

    Attributes:
        name: Name of the photograph.
        original: Its pixels.
        coded: What comes back from the file of the model, then from those of the other codecs.
    """

    name: str
    original: UInt8[np.ndarray, "H W 3"]
    coded: tuple[Coded, ...]


def compare(photograph: Path, stream: Path, decoded: Path) -> Comparison:
    """Return a photograph as it comes back from a file of the model, and from other codecs at no more bytes."""
    original, num_bytes = images.to_uint8_rgb(photograph), stream.stat().st_size
    ours = Coded(OURS, images.to_uint8_rgb(decoded), num_bytes, "")
    return Comparison(photograph.stem, original, (ours, *(code_within(original, name, num_bytes) for name in OPTIONS)))


def ends_of_curve(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over the first and over the last quarter of a curve."""
    width = max(1, len(values) // 4)
    return float(np.mean(values[:width])), float(np.mean(values[-width:]))


def mean_quality(comparisons: Sequence[Comparison], codec: str) -> float:
    """Return the mean PSNR in dB of a codec."""
    pairs = [(one.original, coded.pixels) for one in comparisons for coded in one.coded if coded.codec == codec]
    return float(np.mean([metrics.psnr(*pair) for pair in pairs]))


def findings(losses: Sequence[float], comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence for each thing that should be otherwise."""
    problems = []
    first, last = ends_of_curve(losses)
    if not last < ALLOWED_LOSS_SHARE * first:
        problems.append(f"the loss of the fine-tuning rose: it began at {first:.4f} and ended at {last:.4f}")
    ours, jpeg = (mean_quality(comparisons, codec) for codec in (OURS, "JPEG"))
    if not ours > jpeg:
        problems.append(f"the model has a PSNR of {ours:.2f} dB and JPEG {jpeg:.2f} dB; the model should be better")
    return problems


def sheet(comparisons: Sequence[Comparison], crop: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Return one picture: a row per comparison with the original and what each codec made of it.

    Args:
        comparisons: The rows, of photographs of one size.
        crop: Width and height of the centre that is shown; by default all is shown.
    """
    gap, caption = 8, 20
    full_height, full_width, _ = comparisons[0].original.shape
    width, height = crop or (full_width, full_height)
    top, left = (full_height - height) // 2, (full_width - width) // 2
    num_columns = 1 + len(comparisons[0].coded)
    size = (num_columns * (width + gap) - gap, len(comparisons) * (height + caption + gap) - gap)
    page = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for row, one in enumerate(comparisons):
        captions = [f"{one.name}, original"]
        captions += [
            f"{c.codec}, {c.num_bytes} bytes, {metrics.psnr(one.original, c.pixels):.1f} dB" for c in one.coded
        ]
        pictures = [one.original, *(coded.pixels for coded in one.coded)]
        for column, (text, pixels) in enumerate(zip(captions, pictures, strict=True)):
            x, y = column * (width + gap), row * (height + caption + gap)
            draw.text((x, y + 2), text, fill="black", font=font)
            page.paste(Image.fromarray(pixels[top : top + height, left : left + width]), (x, y + caption))
    return np.asarray(page)


def draw_curve(steps: Sequence[int], values: Sequence[float], path: Path) -> None:
    """Draw the loss over the steps as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, values, linewidth=1)
    axes.set(xlabel="step", ylabel="training loss")
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(path, dpi=110)


COMPARED = ("photograph", "codec", "file bytes", "bits per pixel", "PSNR dB", "MS-SSIM", "settings")
TUNED = ("photograph", "bits per pixel", "tuned", "PSNR dB", "tuned", "MS-SSIM", "tuned")


def compared_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return a row per photograph and codec, and one with the means of each codec."""
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, list[tuple[float, ...]]] = {}
    for name, original, all_coded in comparisons:
        for codec, pixels, num_bytes, settings in all_coded:
            rate = 8 * num_bytes / (original.shape[0] * original.shape[1])
            measured = (float(num_bytes), rate, metrics.psnr(original, pixels), metrics.ms_ssim(original, pixels))
            numbers.setdefault(codec, []).append(measured)
            rows.append((name, codec, *_cells(measured), settings))
    means = ((codec, np.mean(of_codec, axis=0)) for codec, of_codec in numbers.items())
    return rows + [("mean", codec, *_cells(mean), "") for codec, mean in means]


def _cells(numbers: Sequence[float] | np.ndarray) -> list[str]:
    formats = ("{:.0f}", "{:.3f}", "{:.2f}", "{:.4f}")
    return [layout.format(number) for layout, number in zip(formats, numbers, strict=True)]


def tuned_rows(results: Mapping[str, Any], quality: int) -> list[tuple[str, ...]]:
    """Return a row per photograph, and their mean, at a quality level of the two models of an evaluation."""
    tables: list[dict[str, dict[str, float]]] = []
    for curve in results["curves"]:
        if curve["kind"] == "model":
            [point] = (point for point in curve["points"] if point["settings"]["quality"] == quality)
            tables.append({row["name"]: row for row in point["images"]} | {"mean": point["mean"]})
    columns = {"bpp": "{:.3f}", "psnr": "{:.2f}", "ms_ssim": "{:.4f}"}
    return [
        (name, *(layout.format(table[name][field]) for field, layout in columns.items() for table in tables))
        for name in tables[0]
    ]


def write_markdown(
    output: Path,
    compared: Mapping[str, Sequence[Comparison]],
    tuned: Sequence[tuple[str, ...]],
    curve: tuple[Sequence[int], Sequence[float]],
    commands: Sequence[str],
    sentences: Sequence[str],
) -> None:
    """Write report.md with its pictures into a folder.

    Args:
        output: Folder to write into.
        compared: Comparisons by the limit in bits per pixel.
        tuned: Rows of the table about the fine-tuning.
        curve: Steps and values of the training loss.
        commands: What was run.
        sentences: What there is to say about the run.
    """
    draw_curve(*curve, output / "loss.png")
    report = Report("cod_jax demo")
    report.paragraph(
        "The model that comes with the package compresses photographs that it has not seen in training. Beside it are "
        "JPEG and WebP at the largest quality whose file has no more bytes. Where even quality 1 takes more, they code "
        "a smaller picture, which is enlarged again. The photographs are small, so the tables in JPEG's header, about "
        "300 bytes, count for more than in a large one."
    )
    for sentence in sentences:
        report.paragraph(sentence)
    for rate, comparisons in compared.items():
        images.save_png(output / f"at_{rate}.png", sheet(comparisons))
        report.heading(f"At most {rate} bits per pixel")
        report.picture(f"at_{rate}.png", "Originals, the included model, WebP and JPEG at no more bytes")
        report.table(COMPARED, compared_rows(comparisons))
    chosen = [one for pair in zip(*compared.values(), strict=True) for one in pair][: 2 * len(compared)]
    images.save_png(output / "comparison.png", sheet(chosen, CROP))
    report.heading("Fine-tuning")
    report.paragraph(
        "Training goes on from the included weights for a short time, on the photographs in the folder train. Both "
        "models are measured at the same quality level. The prior of the tuned one is fitted to these few photographs "
        "alone; a few hundred would make its files smaller. Minutes of training on five photographs gain little, and "
        "most on unusual ones."
    )
    report.table(TUNED, tuned)
    report.picture("loss.png", "Loss of random crops at random quality levels, averaged between log lines")
    report.heading("What was run")
    report.commands(commands)
    report.write(output / "report.md")
