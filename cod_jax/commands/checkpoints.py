"""`cod checkpoints`: check which checkpoints of a run can be read."""

import argparse
import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.frame import Command

if TYPE_CHECKING:
    from cod_jax.training.run_folder import Place

EPILOG = """
examples:
  cod checkpoints --workdir runs/lite
  cod checkpoints --workdir runs/lite/stage2

Reads every checkpoint completely, of every stage if the run has stages, and prints a line for each, with the number of
the validation that ranks it. The best is the one that cod export takes. The exit status is 1 if one is damaged. A run
that resumes sets damaged checkpoints aside by itself and goes on from an older one.
"""

# How long a checkpoint that cannot be read may take to disappear, if a run is removing it.
REMOVAL_SECONDS = 2.0


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="run folder, as given to cod train, or its address"
    )


def _run(args: argparse.Namespace) -> int:
    from absl import logging as absl_logging

    from cod_jax.training.run_folder import checkpoint_directory, stages_of, steps_of

    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax prints what it also raises
    workdir = checkpoint_directory(args.workdir).parent if files.is_address(args.workdir) else Path(args.workdir)
    folders = [workdir / stage for stage in stages_of(workdir)] or [workdir]
    steps = {folder: steps_of(folder) for folder in folders}
    if not any(steps.values()):
        raise FileNotFoundError(
            f"{checkpoint_directory(workdir)} holds no finished checkpoint; give the --workdir of a run that saved one"
        )
    found = [
        _report(folder, step, name, is_best=step == best)
        for folder in folders
        for name, best in [_best(folder, steps[folder])]
        for step in steps[folder]
    ]
    readable = [one for one in found if one is not None]
    frame.say(f"{sum(readable)} of {len(readable)} checkpoints can be read")
    return frame.DONE if all(readable) else frame.FAILED


def _best(workdir: "Place", steps: Sequence[int]) -> tuple[str, int | None]:
    """Return the name of the number that ranks a run's checkpoints, and the step that is best by it, None without."""
    from cod_jax.training.ranking import rank
    from cod_jax.training.run_folder import DamagedCheckpointError, checkpoint_directory, stored_numbers
    from cod_jax.training.saved_models import best_by, best_step

    name = best_by(workdir)
    numbers = {}
    for step in steps:
        with contextlib.suppress(DamagedCheckpointError, FileNotFoundError):
            numbers[step] = stored_numbers(checkpoint_directory(workdir), step)
    ranked = {step: found for step, found in numbers.items() if math.isfinite(rank(found, name))}
    return name, best_step(ranked, name) if ranked else None


def _report(workdir: "Place", step: int, best_by: str, *, is_best: bool) -> bool | None:
    """Print a line about a checkpoint, and return whether it can be read, None if a run has removed it meanwhile."""
    from cod_jax.training.ranking import DEFAULT, LOSS
    from cod_jax.training.run_folder import DamagedCheckpointError, checkpoint_directory, size_bytes, stored_numbers
    from cod_jax.training.saved_models import check_checkpoint

    folder = checkpoint_directory(workdir) / str(step)
    try:
        not_finite = check_checkpoint(workdir, step)
        numbers = stored_numbers(folder.parent, step)
        size = size_bytes(folder)
    except (DamagedCheckpointError, FileNotFoundError) as error:
        if _is_going(folder):
            frame.say(f"{folder}: a run has removed it meanwhile")
            return None
        frame.say(str(error))
        return False
    validated = [f"validation loss {numbers[LOSS]:.4f}"] if LOSS in numbers else []
    if best_by != DEFAULT and best_by in numbers:
        validated.append(f"{best_by} {numbers[best_by]:.6g}")
    facts = [f"{size / 1e6:,.1f} MB", *(validated or ["no validation at this step"])]
    if is_best:
        facts.append("the best")
    if not_finite:
        facts.append(f"NaN or infinity in {len(not_finite)} arrays, such as {not_finite[0]}")
    frame.say(f"{folder}: {', '.join(facts)}")
    return True


def _is_going(folder: "Place") -> bool:
    """Return whether a folder that could not be read is being removed, which a run does file by file."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while folder.is_dir() and time.monotonic() < deadline:
        time.sleep(REMOVAL_SECONDS / 20)
    return not folder.is_dir()


COMMAND = Command(
    "check which checkpoints of a run can be read",
    _add_options,
    _run,
    EPILOG,
    device="shared",
    addresses=("workdir",),
)
