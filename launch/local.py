r"""Start several processes of the trainer on one machine, as a rehearsal of a run on several machines.

    python -m launch.local --processes 2 --devices-per-process 4 -- --config configs/demo.py --workdir runs/local \
        --config.data.source=PHOTOS

Everything after `--` goes to `python -m cod_jax.train` as it is. Every line of output carries the number of its
process. When one process fails the others are stopped and its exit code is returned. SIGTERM and SIGINT are passed on,
both as SIGTERM, so that the trainers save and leave. One process can drive all accelerators of a machine: to train on
several GPUs no launcher is needed.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from cod_jax.errors import UserError
from cod_jax.launch.local import run, trainer_commands
from cod_jax.launch.processes import device_environment


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = "; arguments of the trainer go behind --" if message.startswith("unrecognized") else ""
        super().error(message + hint)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the launcher and return its exit code."""
    parser = _Parser(
        prog="python -m launch.local",
        description="Start several processes of the trainer on one machine.",
        epilog="Example: python -m launch.local --processes 2 -- --config configs/demo.py --workdir runs/local",
        usage="%(prog)s --processes N [options] -- arguments of cod_jax.train",
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=int, required=True, metavar="N", help="number of processes")
    parser.add_argument(
        "--devices-per-process",
        "--devices_per_process",  # as the option was called before
        type=int,
        default=1,
        metavar="N",
        help="devices each process sees (default: 1)",
    )
    parser.add_argument(
        "--platform", choices=("cpu", "cuda"), default="cpu", help="virtual CPU devices or the machine's GPUs"
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_args(arguments[:cut])
    trainer = arguments[cut + 1 :]
    if args.processes < 1 or args.devices_per_process < 1:
        parser.error("--processes and --devices-per-process must be at least 1")
    if not trainer:
        parser.error("no arguments for the trainer: add -- --config FILE --workdir DIR")
    commands = trainer_commands(args.processes, trainer)
    try:
        environments = [
            device_environment(args.platform, args.devices_per_process, index) for index in range(args.processes)
        ]
    except UserError as error:
        parser.error(str(error))
    return run(commands, environments)


if __name__ == "__main__":
    sys.exit(main())
