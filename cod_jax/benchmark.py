"""Measure speed and memory of training and of the codec on this machine."""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from cod_jax.benchmarks import tables
from cod_jax.benchmarks.codec import CALLS, CODECS, measure_calls, measure_start, prepare
from cod_jax.benchmarks.training import measure_training
from cod_jax.errors import UserError

DESCRIPTION = "Measure speed and memory of training and of the codec on this machine."
EXAMPLES = """
examples:
  python -m cod_jax.benchmark codec                             the published size with random weights
  python -m cod_jax.benchmark codec --model MODEL --size 768x512 --repeats 5
  python -m cod_jax.benchmark codec --dtype bfloat16 --output codec.json
  python -m cod_jax.benchmark train --config configs/tiny.py    one step of a training config
  python -m cod_jax.benchmark train --config configs/tiny.py --config.objective.one_step_weight=1 --output step.json

The codec is measured as the plain model and as python -m cod_jax.compile makes it, in turn. Times are those of calls
from and to host memory; "on device" are the compiled programs by themselves, with input and output on the device.
"ratio" is plain over compiled, "of peak" the share of the bfloat16 rate of a device that is known. "first s" is the
first call, which compiles and, of a compiled model, reads the weights. A start is that of a process that compresses and
decompresses one picture, cold with an empty compilation cache and warm with a filled one.

A step of a training is timed by itself, and images per second without waiting between steps, as a training does it.
Frozen networks have random weights; a teacher has to be named all the same (--config.objective.teacher=MODEL), because
its folder says what it is. One device is measured; a running training reports the speed of all.
"""
SIZES = ("768x512", "1920x1024", "3840x2160")
PRESETS = ("lite",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 measured, 1 failed, 2 usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _build_parser()
    try:
        args, config_arguments = parser.parse_known_args(arguments)
        fields = [name for name in config_arguments if args.command == "train" and name.startswith("--config.")]
        if fields != config_arguments:
            parser.error(f"unknown argument {next(name for name in config_arguments if name not in fields)}")
        for field, option in (("batch_size", "--batch-size"), ("data.image_size", "--image-size")):
            if any(name.split("=")[0] == f"--config.{field}" for name in fields):
                parser.error(f"--config.{field} is not used; {option} says what is measured")
    except SystemExit as stop:
        return int(stop.code or 0)
    load_before = os.getloadavg()
    try:
        measured = _measure_codec(args) if args.command == "codec" else _measure_training(args, fields)
        report = {
            "benchmark": args.command,
            **measured,
            "load_average": {"before": load_before[0], "after": os.getloadavg()[0]},
        }
        print(tables.table(report))
        if args.output:
            from cod_jax.files import write_bytes

            write_bytes(args.output, (json.dumps(report, indent=2) + "\n").encode())
    except (UserError, OSError) as error:
        # Errors of the config library span lines.
        print(f"cod_jax.benchmark: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _measure_codec(args: argparse.Namespace) -> dict[str, Any]:
    """The report on a codec: "system", "model", "peak_flops_per_second" and "results", one for each size."""
    sizes = args.size or DEFAULT_SIZES
    source = {"model": args.model} if args.model else {"preset": args.preset}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        job = {**source, "folder": folder, "dtype": args.dtype, "sizes": sizes}
        prepared = _in_own_process(prepare, job)
        peak = prepared["peak_flops_per_second"]
        for (width, height), flops in zip(sizes, prepared.pop("flops"), strict=True):
            one = {"folder": folder, "width": width, "height": height, "repeats": args.repeats}
            result = _in_own_process(measure_calls, one)
            for part in ("encode", "decode"):
                result[part]["flops"] = flops[part]
                for call in CALLS:
                    rate = flops[part] / result[part][call]["median_seconds"]
                    result[part][call]["flops_per_second"] = rate
                    result[part][call]["share_of_peak"] = None if peak is None else rate / peak
            result["start"] = {codec: measure_start(folder, codec, width, height) for codec in CODECS}
            results.append(result)
    return {**prepared, "results": results}


def _measure_training(args: argparse.Namespace, fields: Sequence[str]) -> dict[str, Any]:
    """The report on a training config: "system", "model" and "results", one for each kind of step."""
    job = {
        "arguments": [f"--config={args.config}", *fields],
        "image_size": args.image_size,
        "batch_size": args.batch_size,
        "repeats": args.repeats,
    }
    # Each kind in a process of its own, because a peak of memory is that of a process.
    first = _in_own_process(measure_training, {**job, "update": 0})
    others = [_in_own_process(measure_training, {**job, "update": number}) for number in range(1, first["num_updates"])]
    return {
        "system": first["system"],
        "model": first["model"],
        "results": [measured["result"] for measured in (first, *others)],
    }


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cod_jax.benchmark",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    codec = commands.add_parser("codec", help="encode and decode pictures", allow_abbrev=False)
    model = codec.add_mutually_exclusive_group()
    model.add_argument(
        "--preset", choices=PRESETS, default="lite", help="CoD-Lite at 0.0312 bits per pixel with random weights"
    )
    model.add_argument("--model", metavar="DIR", help="a model folder of CoD-Lite or pixel CoD")
    codec.add_argument("--size", type=_size, nargs="+", metavar="WIDTHxHEIGHT", help=f"default {' '.join(SIZES)}")
    codec.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype of the computation; default: the model's, and of the preset float32 on CPUs, bfloat16 elsewhere",
    )
    codec.add_argument("--repeats", type=_positive, default=5, help="measured calls of each kind, default 5")
    codec.add_argument("--output", metavar="FILE", help="write the numbers as JSON")
    train = commands.add_parser("train", help="take optimizer steps", allow_abbrev=False)
    train.add_argument(
        "--config",
        default="configs/tiny.py",
        metavar="FILE",
        help="training config, default configs/tiny.py; its fields are set by --config.FIELD=VALUE",
    )
    train.add_argument("--image-size", type=_positive, default=128, help="pixels per side, default 128")
    train.add_argument("--batch-size", type=_positive, default=8, help="images per step, default 8")
    train.add_argument("--repeats", type=_positive, default=10, help="measured steps of each kind, default 10")
    train.add_argument("--output", metavar="FILE", help="write the numbers as JSON")
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.partition("x")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 768x512")
    return _positive(width), _positive(height)


DEFAULT_SIZES = tuple(_size(size) for size in SIZES)


def _in_own_process(measure: Callable[[dict[str, Any]], dict[str, Any]], job: dict[str, Any]) -> dict[str, Any]:
    """Run `measure(job)` in a fresh process; this one has not imported JAX, so the child starts small.

    Raises:
        UserError: The job cannot be done, or its process died.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, job).result()
        except BrokenProcessPool:
            raise UserError("the measuring process was killed; was there enough memory?") from None


if __name__ == "__main__":
    sys.exit(main())
