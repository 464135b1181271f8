"""Train a small codec on a few photographs, use it, and write a report: `python -m cod_jax.demo --output DIR`.

Runs the same commands a user runs (train, export, compress, decompress, evaluate) on photographs that come with
scikit-image; nothing is downloaded. Takes about five minutes on two CPU cores.
"""

import argparse
import csv
import dataclasses
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from cod_jax import bundle, files, images
from cod_jax.evaluation import baseline, metrics
from cod_jax.evaluation.report import Report

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "demo.py"
# Only photographs, not the charts and drawings that scikit-image also has.
TRAINING_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
HELD_OUT_PHOTOGRAPH = "hubble_deep_field.jpg"
SHORT_EDGE = 192
MARKER = ".cod_jax_demo"
LOSS_TAG = "loss"
# The loss must end below this share of where it began; flow matching never reaches zero.
REQUIRED_LOSS_SHARE = 0.8


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


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


def write_photographs(output: Path) -> tuple[Path, Path]:
    """Write scikit-image's photographs as PNG with a short edge of SHORT_EDGE pixels.

    Returns:
      The folders of the training photographs and of the held-out one.

    Raises:
      DemoError: scikit-image or one of its pictures is missing.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DemoError("the demo takes its photographs from scikit-image; install it: pip install 'cod_jax[demo]'")
    source = Path(spec.origin).parent / "data"
    folders = output / "photos" / "train", output / "photos" / "heldout"
    for folder, names in zip(folders, (TRAINING_PHOTOGRAPHS, (HELD_OUT_PHOTOGRAPH,)), strict=True):
        for name in names:
            if not (source / name).is_file():
                raise DemoError(f"scikit-image has no {name} any more; install the version named in pyproject.toml")
            picture = Image.fromarray(images.to_uint8_rgb(source / name))
            scale = SHORT_EDGE / min(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            small = picture.resize(size, Image.Resampling.LANCZOS)
            images.save_png(folder / f"{Path(name).stem}.png", np.asarray(small))
    return folders


def run(module: str, *arguments: str | Path) -> str:
    """Run a command of the package, its output on the terminal, and return the command line as a user types it.

    Raises:
      DemoError: The command failed.
    """
    words = [str(argument) for argument in arguments]
    shown = "cod " if module == "cod_jax.compress" else f"python -m {module} "
    shown += shlex.join(words)
    print(f"\n$ {shown}", flush=True)
    code = subprocess.run([sys.executable, "-m", module, *words], check=False).returncode
    if code != 0:
        raise DemoError(f"this command ended with exit code {code}, its message is above: {shown}")
    return shown


def read_scalars(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    """Return steps and values of a scalar in the TensorBoard files below a folder.

    Raises:
      DemoError: The scalar was never written.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[int, float] = {}
    for parent in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        accumulator = EventAccumulator(str(parent), size_guidance={"scalars": 0})
        accumulator.Reload()
        if tag in accumulator.Tags()["scalars"]:
            points |= {event.step: event.value for event in accumulator.Scalars(tag)}
    if not points:
        raise DemoError(f"the training wrote no scalar named {tag} below {folder}")
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def ends_of_curve(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over the first and over the last tenth of a curve."""
    width = max(1, len(values) // 10)
    return float(np.mean(values[:width])), float(np.mean(values[-width:]))


def measure(
    originals: Path, decoded: Path, rows: Mapping[str, Mapping[str, str]], colours: np.ndarray, pitch: int
) -> list[Measured]:
    """Join the photographs of a folder with their decoded files and the evaluation's rows."""
    measured = []
    for name in files.find_images(originals):
        original = images.to_uint8_rgb(originals / name)
        row = rows[name]
        measured.append(
            Measured(
                name=Path(name).stem,
                original=original,
                decoded=images.to_uint8_rgb(decoded / name),
                flat=baseline.paint_colours(original, colours, pitch),
                mean=baseline.paint_mean(original),
                file_bytes=int(row["file_bytes"]),
                bits_per_pixel=float(row["bits_per_pixel"]),
                ms_ssim=float(row["ms_ssim"]),
            )
        )
    return measured


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
        float(np.mean([squared_error(m.original, getattr(m, field)) for m in training])) for field in ("decoded", "mean")
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
