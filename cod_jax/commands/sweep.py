"""`cod sweep`: train once for every point of a sweep."""

import argparse
import shlex
from pathlib import Path

from cod_jax import files, storage
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import positive
from cod_jax.commands.train import read_arguments
from cod_jax.errors import UserError

EPILOG = """
examples:
  cod sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir runs/rate --dry-run
  cod sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir runs/rate --parallel 2 \\
      -- --config.data.source=photos --config.total_steps=500
  cod sweep --sweep configs/sweeps/bits.py --config configs/lite.py --workdir runs/lite_bits \\
      --slurm runs/lite_bits/slurm -- --config.data.source=photos --config.frozen.weights=weights

The sweep file says which fields take which values; cod_jax/launch/hyper.py has the functions for it. Every point has a
folder of its own in DIR, named after what varies. Everything after -- is passed to every run of cod train
unchanged.

A table at the end shows the validation results of all points and names the best. --dry-run shows it too.

The same command continues where it stopped: finished points are skipped, the others resume. When a point fails, the
others still run; the failures are listed at the end, with exit status 1. SIGTERM and Ctrl-C are passed on, so that the
trainers save; a second one ends them at once.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sweep", required=True, metavar="FILE", help="sweep file, such as configs/sweeps/rate.py")
    parser.add_argument("--config", required=True, metavar="FILE[:OPTIONS]", help="settings that the points change")
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="folder for the folders of the points, or an address such as gs://bucket/sweep",
    )
    parser.add_argument("--parallel", type=positive, metavar="N", help="points at a time; default: 1, under Slurm all")
    parser.add_argument(
        "--gpus-per-point",
        type=positive,
        metavar="N",
        help="GPUs for each point; default: all points share all GPUs, under Slurm 1",
    )
    parser.add_argument("--slurm", metavar="DIR", help="run nothing, write a job array into this folder")
    parser.add_argument("--dry-run", action="store_true", help="check the points and show the commands only")


def _run(args: argparse.Namespace) -> int:
    if not files.is_address(args.workdir):
        return _sweep(args, Path(args.workdir))
    if args.slurm:
        raise UserError(f"the jobs of an array share a local folder, got --workdir {args.workdir}; give a local one")
    address = storage.as_url(args.workdir)
    workdir = storage.working_folder(address, "sweeps")
    with storage.Mirror(workdir, address, lambda name: not {"checkpoints", ".lock"} & set(name.parts)):
        return _sweep(args, workdir, address)


def _sweep(args: argparse.Namespace, workdir: Path, address: str = "") -> int:
    """Do what the command does in a local folder; checkpoints are kept at the address, if there is one."""
    from cod_jax.launch import slurm_array
    from cod_jax.launch.plan import check_data, load_points, plan
    from cod_jax.launch.results import table
    from cod_jax.launch.run_queue import is_done, run_queue

    runs = plan(load_points(args.sweep), args.config, workdir, args.trainer, read_arguments, address)
    if args.dry_run:
        for run in runs:
            frame.say(f"{run.name}{' (done)' if is_done(run) else ''}")
            frame.say(f"    {shlex.join(run.command)}")
        for line in table(runs):
            frame.say(line)
        frame.say(f"{len(runs)} points; nothing was started or written")
        return frame.DONE
    check_data(runs, here=not args.slurm)
    if args.slurm:
        job = workdir.name
        script = slurm_array.write(Path(args.slurm), runs, job, args.parallel, args.gpus_per_point)
        frame.say(f"{len(runs)} points; submit them from this folder: sbatch {shlex.quote(str(script))}")
        return frame.DONE
    files.make_directory(workdir)
    return run_queue(runs, args.parallel or 1, args.gpus_per_point)


COMMAND = Command(
    "train once for every point of a sweep",
    _add_options,
    _run,
    EPILOG,
    trainer_arguments="after --",
    addresses=("workdir",),
)
