"""`cod launch`: start several processes of one training run on this machine."""

import argparse

from cod_jax.commands.frame import Command
from cod_jax.commands.options import positive
from cod_jax.errors import UserError

EPILOG = """
examples:
  cod launch --processes 2 --devices-per-process 4 -- --config configs/tiny.py --workdir runs/local \\
      --config.data.source=photos

This rehearses a run on several machines. Everything after -- is passed to cod train unchanged. Every line of output
begins with the number of its process. When one process fails, the others are stopped and its exit status is returned.
SIGTERM and Ctrl-C are passed on. Processes that train then save and exit, and the exit status is 0 or that of
--status-when-stopped. Training on the GPUs of one machine does not need this command: one process drives all of them.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=positive, required=True, metavar="N", help="number of processes")
    parser.add_argument(
        "--devices-per-process",
        "--devices_per_process",  # as the option was called before
        type=positive,
        default=1,
        metavar="N",
        help="devices that each process sees; default: 1",
    )
    parser.add_argument(
        "--platform", choices=("cpu", "cuda"), default="cpu", help="virtual CPU devices or the machine's GPUs"
    )


def _run(args: argparse.Namespace) -> int:
    from cod_jax.commands.main import parse
    from cod_jax.launch.local import run, trainer_commands
    from cod_jax.launch.processes import device_environment

    if not args.trainer:
        raise UserError("expected arguments of cod train, got none; add -- --config FILE --workdir DIR")
    return run(
        trainer_commands(args.processes, args.trainer),
        [device_environment(args.platform, args.devices_per_process, index) for index in range(args.processes)],
        parse(["train", *args.trainer]).status_when_stopped,
    )


COMMAND = Command(
    "start several processes of one training run", _add_options, _run, EPILOG, trainer_arguments="after --"
)
