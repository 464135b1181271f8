"""The report of the demo: what the codec made of each photograph, beside two baselines."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from cod_jax import images
from cod_jax.evaluation import metrics
from cod_jax.image_search import find_images
from demo import baseline
from demo.pages import Report

# The loss must end below this share of where it began; flow matching never reaches zero.
REQUIRED_LOSS_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Measured:
    """One photograph and what the codec and the baselines made of it.

    Attributes:
        name: Name of the photograph.
        original: Pixels uint8 [H, W, 3].
        decoded: Pixels of the decompressed file.
        flat: The equal-rate baseline: each symbol's cell painted in one of 2^bits colours.
        mean: The photograph painted in its mean colour.
        file_bytes: Size of the compressed file.
        bits_per_pixel: From the size of the file.
        ms_ssim: Of the decompressed file.
    """

    name: str
    original: UInt8[np.ndarray, "H W 3"]
    decoded: UInt8[np.ndarray, "H W 3"]
    flat: UInt8[np.ndarray, "H W 3"]
    mean: UInt8[np.ndarray, "H W 3"]
    file_bytes: int
    bits_per_pixel: float
    ms_ssim: float


def squared_error(a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]) -> float:
    """Return the mean squared error in units of [0, 255]."""
    return float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


def measure(photographs: Path, evaluation: Path, colours: np.ndarray, pitch: int) -> list[Measured]:
    """Join the photographs of a folder with what `cod evaluate` wrote about them."""
    with (evaluation / "per_image.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    measured = []
    for name in find_images(photographs):
        original = images.to_uint8_rgb(photographs / name)
        measured.append(
            Measured(
                name=Path(name).stem,
                original=original,
                decoded=images.to_uint8_rgb(evaluation / "decoded" / name),
                flat=baseline.paint_colours(original, colours, pitch),
                mean=baseline.paint_mean(original),
                file_bytes=int(rows[name]["file_bytes"]),
                bits_per_pixel=float(rows[name]["bits_per_pixel"]),
                ms_ssim=float(rows[name]["ms_ssim"]),
            )
        )
    return measured


def ends_of_curve(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over the first and over the last tenth of a curve."""
    width = max(1, len(values) // 10)
    return float(np.mean(values[:width])), float(np.mean(values[-width:]))


def findings(losses: Sequence[float], training: Sequence[Measured]) -> list[str]:
    """Return a sentence for each thing that a working codec would have done and this one did not."""
    problems = []
    first, last = ends_of_curve(losses)
    if not last < REQUIRED_LOSS_SHARE * first:
        problems.append(
            f"the training loss did not fall: it began at {first:.3f} and ended at {last:.3f}; "
            f"it should end below {REQUIRED_LOSS_SHARE:.0%} of its start"
        )
    ours, mean = (
        float(np.mean([squared_error(m.original, getattr(m, field)) for m in training]))
        for field in ("decoded", "mean")
    )
    if not ours < mean:
        problems.append(
            f"over the training photographs the decoded files have a mean squared error of {ours:.0f}, "
            f"and painting each in its mean colour has {mean:.0f}; the codec should be better than that"
        )
    return problems


def comparison(measured: Sequence[Measured]) -> UInt8[np.ndarray, "H W 3"]:
    """Return one picture: a row per photograph with original, decoded file, equal-rate baseline and mean colour."""
    gap, caption = 8, 22
    columns = ("original", "decoded", "flat", "mean")
    width = max(m.original.shape[1] for m in measured)
    height = sum(m.original.shape[0] + caption + gap for m in measured)
    sheet = Image.new("RGB", (len(columns) * (width + gap) - gap, height - gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    top = 0
    for m in measured:
        for column, field in enumerate(columns):
            pixels = getattr(m, field)
            left = column * (width + gap)
            label = {
                "original": f"{m.name}, original",
                "decoded": f"from {m.file_bytes} bytes, {metrics.psnr(m.original, m.decoded):.1f} dB",
                "flat": f"flat cells, same rate, {metrics.psnr(m.original, m.flat):.1f} dB",
                "mean": f"mean colour, {metrics.psnr(m.original, m.mean):.1f} dB",
            }[field]
            draw.text((left, top + 2), label, fill="black", font=font)
            sheet.paste(Image.fromarray(pixels), (left, top + caption))
        top += m.original.shape[0] + caption + gap
    return np.asarray(sheet)


def draw_curve(steps: Sequence[int], values: Sequence[float], path: Path) -> None:
    """Draw the loss over the steps as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, values, linewidth=1)
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(path, dpi=110)


TABLE_HEADER = (
    "photograph",
    "file bytes",
    "bits per pixel",
    "PSNR dB",
    "MS-SSIM",
    "MSE",
    "MSE flat cells",
    "MSE mean colour",
)


def table_rows(name: str, measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """Return a row per photograph and, if there are several, their mean under a name."""
    numbers: list[tuple[float, ...]] = [
        (
            m.file_bytes,
            m.bits_per_pixel,
            metrics.psnr(m.original, m.decoded),
            m.ms_ssim,
            *(squared_error(m.original, pixels) for pixels in (m.decoded, m.flat, m.mean)),
        )
        for m in measured
    ]
    names = [m.name for m in measured]
    if len(measured) > 1:
        numbers.append(tuple(float(mean) for mean in np.mean(numbers, axis=0)))
        names.append(name)
    formats = ("{:.0f}", "{:.4f}", "{:.2f}", "{:.3f}", "{:.0f}", "{:.0f}", "{:.0f}")
    return [
        (name, *(layout.format(number) for layout, number in zip(formats, row, strict=True)))
        for name, row in zip(names, numbers, strict=True)
    ]


def write_report(
    output: Path,
    training: Sequence[Measured],
    held_out: Sequence[Measured],
    curve: tuple[Sequence[int], Sequence[float]],
    commands: Sequence[str],
    sentences: Sequence[str],
) -> None:
    """Write report.html and report.md with their pictures into a folder.

    Args:
        output: Folder to write into.
        training: The photographs the codec was trained on.
        held_out: Photographs it has not seen.
        curve: Steps and values of the training loss.
        commands: What was run.
        sentences: What there is to say about the run.
    """
    caption = "Original, decoded from the file, flat cells at the same rate, mean colour"
    draw_curve(*curve, output / "loss.png")
    images.save_png(output / "training.png", comparison(training))
    images.save_png(output / "heldout.png", comparison(held_out))
    report = Report("cod_jax demo")
    report.paragraph(
        "A small diffusion codec was trained on a few photographs for some minutes, exported, and used to turn each of "
        "them into a file and back. This shows that everything works together, not how good such a codec can become: "
        "that takes a larger model, many more photographs, and accelerators."
    )
    for sentence in sentences:
        report.paragraph(sentence)
    report.heading("Training photographs")
    report.picture("training.png", caption)
    report.heading("A photograph the codec has not seen")
    report.paragraph(
        "From so few photographs the codec learns these photographs, not photographs in general. The original and what "
        "came back show how far that goes."
    )
    report.picture("heldout.png", caption)
    report.heading("Rate and quality")
    report.paragraph(
        "Bits per pixel are counted from the bytes of the files; MSE is the mean squared error of pixel values from 0 "
        "to 255. Flat cells are the plainest use of the same symbols: each one paints its cell in one of 2^bits "
        "colours, chosen on the training photographs by k-means."
    )
    report.table(TABLE_HEADER, [*table_rows("mean of these", training), *table_rows("mean of these", held_out)])
    report.paragraph(f"Not seen in training: {', '.join(m.name for m in held_out)}.")
    report.heading("Training loss")
    report.picture("loss.png", "Weighted sum of all loss terms, averaged between log lines")
    report.heading("What was run")
    report.commands(commands)
    report.write(output)
