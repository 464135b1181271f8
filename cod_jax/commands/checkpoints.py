"""`cod checkpoints`: check which checkpoints of a run can be read."""

import argparse
import math
from pathlib import Path

from cod_jax.commands import frame
from cod_jax.commands.frame import Command

EPILOG = """
examples:
  cod checkpoints --workdir runs/lite
  cod checkpoints --workdir runs/lite/stage2

Reads every checkpoint completely, of every stage if the run has stages, and prints a line for each. The exit status is
1 if one is damaged. A run that resumes sets damaged checkpoints aside by itself and goes on from an older one.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run folder, as given to cod train")


def _run(args: argparse.Namespace) -> int:
    from absl import logging as absl_logging

    from cod_jax.training.run_folder import checkpoint_directory, stages_of, steps_of

    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax prints what it also raises
    workdir = Path(args.workdir)
    folders = [workdir / stage for stage in stages_of(workdir)] or [workdir]
    steps = {folder: steps_of(folder) for folder in folders}
    if not any(steps.values()):
        raise FileNotFoundError(
            f"{checkpoint_directory(workdir)} holds no finished checkpoint; give the --workdir of a run that saved one"
        )
    readable = [_report(folder, step) for folder in folders for step in steps[folder]]
    frame.say(f"{sum(readable)} of {len(readable)} checkpoints can be read")
    return frame.DONE if all(readable) else frame.FAILED


def _report(workdir: Path, step: int) -> bool:
    """Print a line about a checkpoint, and return whether it can be read."""
    from cod_jax.training.run_folder import DamagedCheckpointError, checkpoint_directory, size_bytes, stored_loss
    from cod_jax.training.saved_models import check_checkpoint

    folder = checkpoint_directory(workdir) / str(step)
    try:
        not_finite = check_checkpoint(workdir, step)
        loss = stored_loss(folder.parent, step)
        size = size_bytes(folder)
    except (DamagedCheckpointError, FileNotFoundError) as error:
        frame.say(str(error))
        return False
    facts = [f"{size / 1e6:,.1f} MB", "not validated" if math.isinf(loss) else f"validation loss {loss:.4f}"]
    if not_finite:
        facts.append(f"NaN or infinity in {len(not_finite)} arrays, such as {not_finite[0]}")
    frame.say(f"{folder}: {', '.join(facts)}")
    return True


COMMAND = Command("check which checkpoints of a run can be read", _add_options, _run, EPILOG, device="shared")
