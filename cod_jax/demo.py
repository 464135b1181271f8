"""Train a small codec on a few photographs, use it, and write a report: `python -m cod_jax.demo --output DIR`.

Runs the same commands a user runs (train, export, compress, decompress, evaluate) on photographs that come with
scikit-image; nothing is downloaded. Takes about five minutes on two CPU cores.
"""

import argparse
import importlib.util
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cod_jax import files, images
from cod_jax.errors import UserError
from cod_jax.evaluation import baseline
from cod_jax.evaluation.demo_report import ends_of_curve, findings, measure, table_rows, write_report
from cod_jax.model_folder.bundle import load_bundle

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "demo.py"
# Only photographs, not the charts and drawings that scikit-image also has.
TRAINING_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
HELD_OUT_PHOTOGRAPH = "coffee.png"
# Crops of the demo config then show things about as large as the whole photographs do; trained on shrunk crops, the
# codec fails on the photographs themselves.
SHORT_EDGE = 168
MARKER = ".cod_jax_demo"
LOSS_TAG = "loss"


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


def write_photographs(output: Path) -> tuple[Path, Path]:
    """Write scikit-image's photographs as PNG with a short edge of SHORT_EDGE pixels.

    Returns:
        The folders of the training photographs and of the held-out one.

    Raises:
        DemoError: Scikit-image or one of its pictures is missing.
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
    shown = shlex.join([*(["cod"] if module == "cod_jax.compress" else ["python", "-m", module]), *words])
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


def clear_output(output: Path) -> None:
    """Make the output folder, or empty the one an earlier demo left.

    Raises:
        DemoError: The folder holds something else.
    """
    if output.exists() and not output.is_dir():
        raise DemoError(f"{output} is a file; choose another --output")
    if output.is_dir() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            raise DemoError(f"{output} holds something that is not from an earlier demo; choose another --output")
        for path in output.iterdir():
            if path.name != MARKER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    files.write_bytes(output / MARKER, b"python -m cod_jax.demo empties this folder when it starts.\n")


def demonstrate(output: Path, trainer_flags: Sequence[str]) -> list[str]:
    """Do everything from photographs to report.

    Args:
        output: Folder to write.
        trainer_flags: Flags added to the trainer's.

    Returns:
        What did not go as it should, a sentence each.

    Raises:
        DemoError: A step failed.
    """
    start = time.monotonic()
    if not CONFIG.is_file():
        raise DemoError(f"{CONFIG} is missing; run the demo from a checkout of the repository")
    clear_output(output)
    train_folder, held_out_folder = write_photographs(output)
    workdir, model = output / "run", output / "model"
    compressed, decoded = output / "compressed", output / "decoded"
    photographs = [folder / name for folder in (train_folder, held_out_folder) for name in files.find_images(folder)]

    source = f"--config.data.source={train_folder}"
    commands = [run("cod_jax.train", "--config", CONFIG, "--workdir", workdir, source, *trainer_flags)]
    trained = time.monotonic()
    commands.append(run("cod_jax.export", "--workdir", workdir, "--output", model))
    commands.append(run("cod_jax.compress", "compress", "-m", model, *photographs, "-o", f"{compressed}/"))
    streams = [compressed / f"{photograph.stem}.cod" for photograph in photographs]
    commands.append(run("cod_jax.compress", "decompress", "-m", model, *streams, "-o", f"{decoded}/"))
    evaluations = output / "evaluation" / "train", output / "evaluation" / "heldout"
    for folder, evaluation in zip((train_folder, held_out_folder), evaluations, strict=True):
        commands.append(run("cod_jax.evaluate", "--model", model, "--images", folder, "--output", evaluation))

    config = load_bundle(model).config.codec
    originals = [images.to_uint8_rgb(train_folder / name) for name in files.find_images(train_folder)]
    colours = baseline.fit_colours(originals, config.pitch, config.codebook_size)
    training = measure(train_folder, evaluations[0], colours, config.pitch)
    held_out = measure(held_out_folder, evaluations[1], colours, config.pitch)
    steps, losses = read_scalars(workdir, LOSS_TAG)

    problems = findings(losses, training)
    first, last = ends_of_curve(losses)
    _, num_bytes, *_, ours, flat, mean = table_rows("mean", training)[-1]
    summary = [
        f"Each symbol stands for {config.pitch}x{config.pitch} pixels and takes {config.codebook_bits} bits.",
        f"{steps[-1]} training steps took {trained - start:.0f} seconds; the loss went from {first:.3f} to {last:.3f}.",
        f"Over the training photographs: {num_bytes} bytes a file on average, mean squared error {ours}, against "
        f"{mean} for painting each in its mean colour and {flat} for flat cells at the same rate.",
    ]
    write_report(output, training, held_out, (steps, losses), commands, [*problems, *summary])
    print("\n" + "\n".join(summary))
    print(f"The whole demo took {time.monotonic() - start:.0f} seconds. The report: {output / 'report.html'}")
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 a working codec, 1 something failed or the codec is worse than it should be, 2 wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cod_jax.demo",
        description="Train a small codec on a few photographs, use it, and write a report.",
        epilog="Example: python -m cod_jax.demo --output demo_output",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("trainer", nargs="*", metavar="FLAG", help="after --, flags added to those of the trainer")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        problems = demonstrate(args.output, args.trainer)
    except (DemoError, UserError, OSError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        problems = ["interrupted"]
    for problem in problems:
        print(f"cod_jax.demo: error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
