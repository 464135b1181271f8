"""Train once for every point of a sweep, here or as a Slurm job array.

    python -m launch.sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir runs/rate \
        -- --config.data.source=photos

The sweep file says which fields take which values (see launch/hyper.py). Every point has a folder of its own in the
work folder, named after what varies. Everything behind `--` goes to every run of `python -m cod_jax.train` as it is.
"""

import argparse
import collections
import hashlib
import itertools
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cod_jax import files, train
from cod_jax.errors import UserError
from cod_jax.input.sources import open_source
from cod_jax.input.tfds_source import PREFIX as TFDS_PREFIX
from cod_jax.training.config import TrainConfig
from launch import hyper, slurm_array
from launch.run_queue import Run, is_done, run_queue

DONE, USAGE = 0, 2
PREFIX = "config."
# Longer names are cut; file systems take 255 bytes, and a run adds nothing to the name of its folder.
LONGEST_NAME = 150
# Values by dotted name, as the trainer reads them on its command line.
Point = dict[str, str]

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
    except train.UsageError as error:
        print(f"launch.sweep: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE
    if args.dry_run:
        for run in runs:
            print(f"{run.name}{' (done)' if is_done(run) else ''}\n    {shlex.join(run.command)}")
        print(f"{len(runs)} points; nothing was started or written")
        return DONE
    try:
        check_data(runs, here=not args.slurm)
        if args.slurm:
            job = Path(args.workdir).name
            script = slurm_array.write(Path(args.slurm), runs, job, args.parallel, args.gpus_per_point)
            print(f"{len(runs)} points; submit them from this folder: sbatch {shlex.quote(str(script))}")
            return DONE
        files.make_directory(args.workdir)
    except (OSError, ValueError) as error:
        print(files.printable(f"launch.sweep: error: {files.reason(error)}"), file=sys.stderr)
        return USAGE
    return run_queue(runs, args.parallel or 1, args.gpus_per_point)


def load_points(file: str) -> list[Point]:
    """Run `get_hyper` of a sweep file.

    Args:
        file: Path of the sweep file.

    Returns:
        The points in order; one that is there twice is taken once.

    Raises:
        UsageError: The file is missing or cannot be used.
    """
    if not Path(file).is_file():
        raise train.UsageError(f"there is no sweep file {file}; configs/sweeps/ holds one to start from")
    try:
        names = runpy.run_path(file)
        if "get_hyper" not in names:
            raise train.UsageError(f"sweep file {file} defines no get_hyper(hyper); see configs/sweeps/rate.py")
        points = [{name: _text(value) for name, value in point.items()} for point in names["get_hyper"](hyper)]
    except (SyntaxError, ImportError, NameError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise train.UsageError(f"sweep file {file} cannot be used: {type(error).__name__}: {error}") from error
    for name in itertools.chain.from_iterable(points):
        if not str(name).startswith(PREFIX):
            raise train.UsageError(f"sweep file {file} sets {name}; the names of fields begin with {PREFIX!r}")
    if not any(points):
        raise train.UsageError(f"sweep file {file} gives no points; see configs/sweeps/rate.py")
    return list({tuple(sorted(point.items())): point for point in points}.values())


def plan(points: Sequence[Point], config: str, workdir: Path, extra: Sequence[str]) -> list[Run]:
    """Turn points into runs of the trainer, each with its folder, after checking all of them.

    Args:
        points: Values by dotted name.
        config: Config file with its preset, FILE[:PRESET].
        workdir: Folder of the sweep.
        extra: Further arguments of the trainer.

    Raises:
        UsageError: A field does not exist, or the trainer could not use its value.
    """
    common = [f"--config={config}", *extra]
    _check_extra(extra, points)
    train.parse_arguments(common)  # what is wrong without the sweep is not blamed on a point
    runs = []
    for name, point in zip(point_names(points), points, strict=True):
        try:
            arguments = [*common, *(f"--{field}={value}" for field, value in point.items())]
            settings = TrainConfig.from_dict(train.parse_arguments(arguments).config.to_dict())
        except (UserError, train.UsageError) as error:
            raise train.UsageError(f"point {name}: {error}") from error
        runs.append(Run(name, workdir / name, tuple(arguments), settings.to_dict()))
    return runs


def check_data(runs: Sequence[Run], *, here: bool) -> None:
    """Refuse runs without training images.

    Args:
        runs: The points.
        here: Whether they will run on this machine, so that it has the images. Datasets of tensorflow-datasets are left
            to the trainer.

    Raises:
        UserError: A point names no images, or what it names holds none.
        OSError: What a point names is missing.
    """
    data = [run.settings["data"] for run in runs]
    for run, settings in zip(runs, data, strict=True):
        if not settings["source"]:
            raise UserError(
                f"point {run.name} has no data.source; add -- --config.data.source=FOLDER, a folder of photographs"
            )
    sources = [settings[name] for settings in data for name in ("source", "validation_source")]
    for source in dict.fromkeys(sources):
        if here and source and not source.startswith(TFDS_PREFIX):
            open_source(source)


def point_names(points: Sequence[Point]) -> list[str]:
    """A folder name for each point: the fields that vary with their values, such as "codebook_bits=4,seed=0".

    The names hold letters, digits and "._+-=,~" only, and differ even where upper and lower case are the same.

    Args:
        points: Values by dotted name; no two points are the same.
    """
    values = collections.defaultdict(list)
    for point in points:
        for field, value in point.items():
            values[field].append(value)
    varied = [field for field, seen in values.items() if len(seen) < len(points) or len(set(seen)) > 1]
    labels = {field: _label(field, values) for field in values}
    names = []
    for point in points:
        fields = [field for field in point if field in varied] or list(point)
        names.append(",".join(f"{labels[field]}={_safe(point[field])}" for field in fields) or "default")
    counts = collections.Counter(name.casefold() for name in names)
    return [
        name if counts[name.casefold()] == 1 and len(name) <= LONGEST_NAME else _with_digest(name, point)
        for name, point in zip(names, points, strict=True)
    ]


def _label(field: str, fields: Iterable[str]) -> str:
    """The shortest end of a dotted name that no other field has."""
    parts = field.split(".")
    for count in range(1, len(parts)):
        if sum(other.split(".")[-count:] == parts[-count:] for other in fields) == 1:
            return _safe(".".join(parts[-count:]))
    return _safe(field)


def _safe(text: str) -> str:
    """The text with a "_" for what does not belong in the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("_") or "empty"


def _with_digest(name: str, point: Point) -> str:
    described = json.dumps(point, sort_keys=True).encode()
    return f"{name[:LONGEST_NAME]}~{hashlib.sha256(described).hexdigest()[:8]}"


def _text(value: Any) -> str:
    """A value as the trainer reads it on the command line.

    Raises:
        UserError: It has no such form.
    """
    if hasattr(value, "item"):
        value = value.item()  # a number of numpy
    if isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, bool | int | float | str | tuple):
        raise UserError(f"a value is {value!r}; use numbers, text, booleans or tuples of them")
    text = str(value)
    if "\n" in text:
        raise UserError(f"a value is {text!r}; it must be one line")
    return text


def _check_extra(extra: Sequence[str], points: Sequence[Point]) -> None:
    """Refuse what the sweep decides."""
    swept = set(itertools.chain.from_iterable(points))
    for argument in extra:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in ("config", "workdir"):
            raise train.UsageError(f"--{name} is an option of the sweep; give it before --")
        if argument.startswith("-") and name in swept:
            raise train.UsageError(f"--{name} is given behind -- but the sweep sets it; leave it out of one")


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those behind the first `--`."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:cut]), list(arguments[cut + 1 :])


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
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
