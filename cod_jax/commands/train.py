"""`cod train`: train a codec or resume its training."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cod_jax import files, storage
from cod_jax.commands import frame
from cod_jax.commands.frame import Command

EXAMPLES = """
examples:
  cod train --config configs/tiny.py --workdir runs/tiny --config.data.source=photos
  cod train --config configs/lite.py:all --workdir runs/lite --config.data.source=photos
  cod train --config configs/pixel.py:2,size=114m --workdir runs/pixel2 --config.data.source=photos \\
      --config.init_from=runs/pixel1
  cod train --config configs/lite.py --workdir runs/lite --config.data.source=photos --config.mesh.fsdp=8

A run that is told to stop during its steps, by SIGTERM or Ctrl-C, saves and exits with 0; the same command resumes from
the newest checkpoint in the run folder. A second signal changes nothing, and a third ends the process without the save.
Before the first step there is nothing to save: it exits with 130 or 143.
`cod settings --config FILE` lists the options after the colon, and all fields. To watch a run: tensorboard --logdir DIR

The option "all" of a file with stages runs them one after the other in DIR/stage1, DIR/stage2, ... Finished stages are
skipped, the unfinished one is resumed, and each starts from the one before. Settings given here apply to all stages.

On TPU pods and under Slurm JAX finds the processes of a run: every host runs the same command with --distributed.
Elsewhere give each process --coordinator-address, --num-processes and --process-id.
"""
INTERRUPTED = "interrupted; the same command resumes from the newest checkpoint, if there is one"


def read_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the settings that arguments of this command give, without --workdir.

    Raises:
        UserError: The arguments cannot be used.
    """
    from cod_jax.commands.main import parse
    from cod_jax.training.config_files import read_settings

    args = parse(["train", *arguments, "--workdir=."])
    return read_settings(args.config, args.settings)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE[:OPTIONS]", help="config file, with its options after a colon"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="run folder: checkpoints, TensorBoard files, train.log; or an address such as gs://bucket/run",
    )
    # The fields are known when the config file has been read; this line is for the help.
    parser.add_argument(
        "--config.FIELD",
        dest="field",
        metavar="VALUE",
        help="change a setting; a tuple is written as --config.FIELD=\"('a', 'b')\"",
    )
    parser.add_argument(
        "--profile",
        type=_steps,
        metavar="steps=A..B",
        help="trace these steps, for the tab Profile of TensorBoard (needs the package xprof)",
    )
    parser.add_argument(
        "--status-when-stopped",
        type=_status,
        default=frame.DONE,
        metavar="N",
        help="exit status of a run that saved because it was told to stop: 0, the default, or 3 to 125. Where a "
        "scheduler takes 0 for the end of the run, give another one",
    )
    parser.add_argument("--distributed", action="store_true", help="join the other processes of the run")
    parser.add_argument(
        "--coordinator-address", "--coordinator_address", metavar="HOST:PORT", help="address of the first process"
    )
    parser.add_argument(
        "--num-processes", "--num_processes", type=int, metavar="N", help="how many processes the run has"
    )
    parser.add_argument("--process-id", "--process_id", type=int, metavar="I", help="number of this process, from 0")


def _status(text: str) -> int:
    # 1 and 2 are failures, and from 126 on shells and signals have theirs.
    if not text.isdecimal() or int(text) not in (frame.DONE, *range(3, 126)):
        raise argparse.ArgumentTypeError(f"expected 0, or a status from 3 to 125, got {text!r}")
    return int(text)


def _steps(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"steps=(\d+)\.\.(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected the first and the last step, such as steps=100..110, got {text!r}")
    return int(match[1]), int(match[2])


def _epilog() -> str:
    """Return the examples, and the config files that are found here with their options."""
    from cod_jax.training.config_list import config_files

    lines = ["", "config files, with the options that follow the colon (the first is the default):"]
    for file in config_files():
        lines.append(f"  {file.name}: {file.title}")
        lines += [f"      {choice}" for choice in file.choices]
    return EXAMPLES + "\n".join(lines) + "\n"


def _run(args: argparse.Namespace) -> int:
    from absl import logging as absl_logging

    from cod_jax.training.config_files import read_stages
    from cod_jax.training.stopping import exit_when_told

    # Orbax and grain warn about what is normal here, and print tracebacks of errors that they also raise.
    absl_logging.set_verbosity(absl_logging.FATAL)
    workdir, address, settings = Path(args.workdir), "", args.settings
    if files.is_address(args.workdir):
        address = storage.as_url(args.workdir)
        workdir = storage.working_folder(address, "runs")
        settings = [f"--config.checkpoint.address={address}", *settings]
    stages = read_stages(args.config, settings)
    # Before joining other processes: jax.distributed then puts its own handler of SIGTERM in the place of this one.
    with exit_when_told(f"{args.program}: error: {INTERRUPTED}"):
        from cod_jax.evaluation.metric_table import named_metrics
        from cod_jax.interop.frozen_networks.by_name import load_frozen
        from cod_jax.models.fields import from_mapping
        from cod_jax.parallel.processes import join_processes
        from cod_jax.training.config import LimitsConfig
        from cod_jax.training.start import run_stages

        limits = from_mapping(LimitsConfig, next(iter(stages.values())).get("limits", {}), "config.limits")
        join_processes(
            args.distributed,
            args.coordinator_address,
            args.num_processes,
            args.process_id,
            join_seconds=limits.join_seconds,
            heartbeat_seconds=limits.heartbeat_seconds,
        )
        finished = run_stages(stages, workdir, load_frozen, named_metrics, args.profile, address)
    return frame.DONE if finished else args.status_when_stopped


COMMAND = Command(
    "train a codec or resume its training",
    _add_options,
    _run,
    _epilog,
    device="whole",
    trainer_arguments="settings",
    addresses=("workdir",),
)
