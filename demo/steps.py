"""The steps of the demo: the same commands that a user runs, on a few photographs."""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cod_jax import files, images
from cod_jax.errors import UserError
from cod_jax.image_search import find_images
from cod_jax.model_folder.bundle import load_bundle
from demo import baseline
from demo.comparison import ends_of_curve, findings, measure, table_rows, write_report
from demo.photographs import write_photographs

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "demo.py"
MARKER = ".cod_jax_demo"
LOSS_TAG = "loss"


def run(*arguments: str | Path) -> str:
    """Run a command of `cod`, its output on the terminal, and return the command line as a user types it.

    Raises:
        UserError: The command failed.
    """
    words = [str(argument) for argument in arguments]
    shown = shlex.join(["cod", *words])
    print(f"\n$ {shown}", flush=True)
    code = subprocess.run([sys.executable, "-m", "cod_jax", *words], check=False).returncode
    if code != 0:
        raise UserError(f"this command ended with exit code {code}, its message is above: {shown}")
    return shown


def read_scalars(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    """Return steps and values of a scalar in the TensorBoard files below a folder.

    Raises:
        UserError: The scalar was never written.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[int, float] = {}
    for parent in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        accumulator = EventAccumulator(str(parent), size_guidance={"scalars": 0})
        accumulator.Reload()
        if tag in accumulator.Tags()["scalars"]:
            points |= {event.step: event.value for event in accumulator.Scalars(tag)}
    if not points:
        raise UserError(f"the training wrote no scalar named {tag} below {folder}")
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def clear_output(output: Path) -> None:
    """Make the output folder, or empty the one that an earlier demo left.

    Raises:
        UserError: The folder holds something else.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; choose another --output")
    if output.is_dir() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            raise UserError(f"{output} holds something that is not from an earlier demo; choose another --output")
        for path in output.iterdir():
            if path.name != MARKER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    files.write_bytes(output / MARKER, b"python -m demo empties this folder when it starts.\n")


def demonstrate(output: Path, trainer_flags: Sequence[str]) -> list[str]:
    """Do everything from photographs to report.

    Args:
        output: Folder to write.
        trainer_flags: Flags added to the trainer's.

    Returns:
        What did not go as it should, a sentence each.

    Raises:
        UserError: A step failed.
    """
    start = time.monotonic()
    clear_output(output)
    train_folder, held_out_folder = write_photographs(output)
    workdir, model = output / "run", output / "model"
    compressed, decoded = output / "compressed", output / "decoded"
    photographs = [folder / name for folder in (train_folder, held_out_folder) for name in find_images(folder)]

    source = f"--config.data.source={train_folder}"
    commands = [run("train", "--config", CONFIG, "--workdir", workdir, source, *trainer_flags)]
    trained = time.monotonic()
    commands.append(run("export", "--workdir", workdir, "--output", model))
    commands.append(run("compress", "-m", model, *photographs, "-o", f"{compressed}/"))
    streams = [compressed / f"{photograph.stem}.cod" for photograph in photographs]
    commands.append(run("decompress", "-m", model, *streams, "-o", f"{decoded}/"))
    evaluations = output / "evaluation" / "train", output / "evaluation" / "heldout"
    for folder, evaluation in zip((train_folder, held_out_folder), evaluations, strict=True):
        commands.append(run("evaluate", "--model", model, "--images", folder, "--output", evaluation))

    config = load_bundle(model).config.codec
    bits = config.symbols.bits or 0
    originals = [images.to_uint8_rgb(train_folder / name) for name in find_images(train_folder)]
    colours = baseline.fit_colours(originals, config.pitch, 2**bits)
    training = measure(train_folder, evaluations[0], colours, config.pitch)
    held_out = measure(held_out_folder, evaluations[1], colours, config.pitch)
    steps, losses = read_scalars(workdir, LOSS_TAG)

    problems = findings(losses, training)
    first, last = ends_of_curve(losses)
    _, num_bytes, *_, ours, flat, mean = table_rows("mean", training)[-1]
    summary = [
        f"Each symbol stands for {config.pitch}x{config.pitch} pixels and takes {bits} bits.",
        f"{steps[-1]} training steps took {trained - start:.0f} seconds; the loss went from {first:.3f} to {last:.3f}.",
        f"Over the training photographs: {num_bytes} bytes a file on average, mean squared error {ours}, against "
        f"{mean} for painting each in its mean colour and {flat} for flat cells at the same rate.",
    ]
    write_report(output, training, held_out, (steps, losses), commands, [*problems, *summary])
    print("\n" + "\n".join(summary))
    print(f"The whole demo took {time.monotonic() - start:.0f} seconds. The report: {output / 'report.html'}")
    return problems
