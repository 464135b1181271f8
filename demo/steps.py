"""The steps of the demo: the same commands that a user runs, on a few photographs."""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.evaluation.reading import read_results
from cod_jax.evaluation.report.page import write_report
from cod_jax.image_search import find_images
from cod_jax.model_folder.included import DEFAULT
from demo.comparison import CODECS, compare, ends_of_curve, findings, mean_quality, tuned_rows, write_markdown
from demo.photographs import write_photographs

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "compact.py"
BITS_PER_PIXEL = ("0.1", "0.25")
# A small learning rate, because the weights are trained already. All photographs are trained on and none is held out.
TRAINER_FLAGS = (
    f"--config.init_from={DEFAULT}",
    "--config.total_steps=120",
    "--config.optimizer.learning_rate=4e-4",
    "--config.optimizer.warmup_steps=10",
    "--config.ema.decay=0.95",
    "--config.data.validation_modulus=0",
    "--config.validation.every_steps=0",
    "--config.log.every_steps=5",
)
QUALITY = 4
BASELINES = "jpeg,webp"
MARKER = ".cod_jax_demo"
LOSS_TAG = "loss"


def run(*arguments: str | int | Path) -> str:
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
    folders = write_photographs(output)
    photographs, workdir, tuned = output / "photos", output / "run", output / "tuned"
    compressed, decoded = output / "compressed", output / "decoded"
    names = find_images(photographs)

    commands = [
        run("compress", "-r", photographs, "-o", f"{compressed / rate}/", "--bpp", rate) for rate in BITS_PER_PIXEL
    ]
    commands.append(run("decompress", "-r", compressed, "-o", f"{decoded}/"))
    compared = {
        rate: [
            compare(photographs / name, (compressed / rate / name).with_suffix(".cod"), decoded / rate / name)
            for name in names
        ]
        for rate in BITS_PER_PIXEL
    }
    compared_seconds = time.monotonic() - start

    source = f"--config.data.source={folders[0]}"
    commands.append(run("train", "--config", CONFIG, "--workdir", workdir, source, *TRAINER_FLAGS, *trainer_flags))
    commands.append(run("export", "--workdir", workdir, "--output", tuned, "--images", folders[0]))
    evaluation = output / "evaluation"
    options = ("--images", photographs, "--output", evaluation, "--baselines", BASELINES)
    commands.append(run("evaluate", "-m", DEFAULT, "-m", tuned, *options, "--no-report"))
    curve = read_scalars(workdir, LOSS_TAG)

    everything = [one for of_rate in compared.values() for one in of_rate]
    problems = findings(curve[1], everything)
    summary = [
        f"At most {rate} bits per pixel, mean PSNR: "
        + ", ".join(f"{codec} {mean_quality(of_rate, codec):.2f} dB" for codec in CODECS)
        for rate, of_rate in compared.items()
    ]
    first, last = ends_of_curve(curve[1])
    summary.append(f"In {curve[0][-1]} steps of fine-tuning the loss went from {first:.4f} to {last:.4f}.")
    rows = tuned_rows(read_results(evaluation), QUALITY)
    write_markdown(output, compared, rows, curve, commands, [*problems, *summary])
    write_report(evaluation, photographs, output / "report.html", title="cod_jax demo", notes=[*problems, *summary])
    print("\n" + "\n".join(summary))
    print(
        f"The whole demo took {time.monotonic() - start:.0f} seconds, the comparison {compared_seconds:.0f} of them. "
        f"The report: {output / 'report.html'}"
    )
    return problems
