r"""Train once for every point of a sweep, here or as a Slurm job array.

    python -m launch.sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir runs/rate \
        -- --config.data.source=photos

The sweep file says which fields take which values (see cod_jax/launch/hyper.py). Every point has a folder of its own in
the work folder, named after what varies. Everything after `--` goes to every run of `python -m cod_jax.train` as it is.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cod_jax import files
from cod_jax.launch import slurm_array
from cod_jax.launch.plan import check_data, load_points, plan
from cod_jax.launch.run_queue import is_done, run_queue

DONE, USAGE = 0, 2

EPILOG = """
examples:
  python -m launch.sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir runs/rate --dry-run
  python -m launch.sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir runs/rate --parallel 2 \\
      -- --config.data.source=photos --config.total_steps=500
  python -m launch.sweep --sweep configs/sweeps/bits.py --config configs/lite.py --workdir runs/lite_bits \\
      --slurm runs/lite_bits/slurm -- --config.data.source=photos --config.frozen.weights=weights

The same command goes on where it stopped: finished points are left out, the others resume. SIGTERM and Ctrl-C are
passed on, so that the trainers save; a second one ends them at once.

exit status:
  0    every point is done, or the Slurm files are written
  1    some points failed; the others were run
  2    wrong usage; nothing was started
  130  stopped by Ctrl-C (143 by SIGTERM)
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = "settings of the trainer go behind --" if "--config." in message else f"see {self.prog} --help"
        self.exit(USAGE, f"launch.sweep: error: {message}; {hint}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, extra = _split(arguments)
    try:
        args = _build_parser().parse_args(own)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        runs = plan(load_points(args.sweep), args.config, Path(args.workdir), extra)
        if args.dry_run:
            for run in runs:
                print(f"{run.name}{' (done)' if is_done(run) else ''}\n    {shlex.join(run.command)}")
            print(f"{len(runs)} points; nothing was started or written")
            return DONE
        check_data(runs, here=not args.slurm)
        if args.slurm:
            job = Path(args.workdir).name
            script = slurm_array.write(Path(args.slurm), runs, job, args.parallel, args.gpus_per_point)
            print(f"{len(runs)} points; submit them from this folder: sbatch {shlex.quote(str(script))}")
            return DONE
        files.make_directory(args.workdir)
        return run_queue(runs, args.parallel or 1, args.gpus_per_point)
    except (OSError, ValueError) as error:
        print(files.printable(f"launch.sweep: error: {files.reason(error)}"), file=sys.stderr)
        return USAGE


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those behind the first `--`."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:cut]), list(arguments[cut + 1 :])


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return int(text)


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="python -m launch.sweep",
        description="Train once for every point of a sweep, here or as a Slurm job array.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="%(prog)s --sweep FILE --config FILE[:PRESET] --workdir DIR [options] [-- arguments of cod_jax.train]",
    )
    parser.add_argument("--sweep", required=True, metavar="FILE", help="sweep file, such as configs/sweeps/rate.py")
    parser.add_argument("--config", required=True, metavar="FILE[:PRESET]", help="settings that the points change")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder for the folders of the points")
    parser.add_argument("--parallel", type=_positive, metavar="N", help="points at a time (1; under Slurm all)")
    parser.add_argument(
        "--gpus-per-point", type=_positive, metavar="N", help="GPUs for each point (here all share all; under Slurm 1)"
    )
    parser.add_argument("--slurm", metavar="DIR", help="run nothing, write a job array into this folder")
    parser.add_argument("--dry-run", action="store_true", help="check the points and show the commands only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
