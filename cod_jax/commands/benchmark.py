"""`cod benchmark`: measure speed and memory of training, of its input and of the codec on this machine."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_list, named_model, positive
from cod_jax.errors import UserError

EPILOG = """
examples:
  cod benchmark codec                             the published size with random weights
  cod benchmark codec --model MODEL --size 768x512 --repeats 5
  cod benchmark codec --model compact             the included model
  cod benchmark codec --dtype bfloat16 --output codec.json
  cod benchmark train --config configs/compact.py one step of a training config
  cod benchmark train --config configs/tiny.py --config.objective.one_step_weight=1 --output step.json
  cod benchmark input --config configs/pixel.py:1 --config.data.source=shards --rate 640
  cod benchmark compare "cod decompress a.cod -o a.png --force" "djxl a.jxl b.png"
  cod benchmark compare "cod compress a.png -o a.cod --force" --checkouts old new
  cod benchmark device --output measured          the whole benchmark for a GPU, in 25 minutes

The codec is measured as the plain model and as cod compile makes it, in turn. Times are those of calls from and to host
memory; "on device" are the compiled programs by themselves, with input and output on the device. "ratio" is plain over
compiled, "of peak" the share of the bfloat16 rate of a device that is known. "first s" is the first call, which
compiles and, for a compiled model, reads the weights. Matrix products and copies are timed in turn with the calls, and
the program by itself is compared with them, as a training step is. "Each megapixel more" is by how much the largest
memory of a process grows between the smallest and the largest size. A start is that of a process that compresses and
decompresses one picture, cold with an empty compilation cache and warm with a filled one.

A training step is timed by itself, and images per second without waiting between steps, as in a training run. Frozen
networks have random weights; a teacher must still be named (--config.objective.teacher=MODEL), because its folder
describes its network. One device is measured; a training run reports the speed of all. Matrix products and copies are
timed in turn with the steps: they are the ceilings of the device, and the share of the roofline is what a step reaches
of the higher of both times.

input reads, decodes and crops training images as a run of the config does. The rate of one core is by CPU time, so
other programs hardly change it; that of all threads is by wall-clock time. --rate is how many images per second the
devices of this host take, and the answer how many cores that needs, and which share of its time a run would wait here.

compare runs both commands in turn, and its ratio is the median over the pairs of the second's time over the first's.
The second can be any other implementation that has a command line.

device runs the other benchmarks one after the other, the most important ones first, and keeps what each has printed and
its numbers in a folder: CoD-Lite in bfloat16 and in float32, with and without command buffers, the included model, and
training steps. --small takes sizes that a CPU computes in minutes, to see that all of them run.
"""
SIZES = ("768x512", "1920x1024", "3840x2160")
PRESETS = ("lite",)


def _add_options(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", required=True)
    codec = subjects.add_parser("codec", help="encode and decode pictures")
    model = codec.add_mutually_exclusive_group()
    model.add_argument(
        "--preset", choices=PRESETS, default="lite", help="CoD-Lite at 0.0312 bits per pixel with random weights"
    )
    model.add_argument(
        "--model", type=named_model, metavar="DIR", help="a model folder of a compact model, CoD-Lite or pixel CoD"
    )
    add_list(
        codec, "--size", _size, default=map(_size, SIZES), metavar="WIDTHxHEIGHT", help=f"default {' '.join(SIZES)}"
    )
    codec.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype of the computation; default: the model's, and of the preset float32 on CPUs, bfloat16 elsewhere",
    )
    codec.add_argument("--repeats", type=positive, default=5, help="measured calls of each kind, default 5")
    codec.add_argument("--output", metavar="FILE", help="write the numbers as JSON")
    train = subjects.add_parser("train", help="take optimizer steps")
    _add_config(train)
    train.add_argument("--image-size", type=positive, default=128, help="pixels per side, default 128")
    train.add_argument("--batch-size", type=positive, default=8, help="images per step, default 8")
    train.add_argument("--repeats", type=positive, default=10, help="measured steps of each kind, default 10")
    train.add_argument("--output", metavar="FILE", help="write the numbers as JSON")
    reading = subjects.add_parser("input", help="read training images")
    _add_config(reading)
    reading.add_argument("--batch-size", type=positive, default=8, help="images per batch, default 8")
    reading.add_argument("--repeats", type=positive, default=50, help="measured batches, default 50")
    reading.add_argument("--rate", type=positive, metavar="N", help="images per second that the devices take")
    reading.add_argument("--output", metavar="FILE", help="write the numbers as JSON")
    compare = subjects.add_parser("compare", help="time two commands pair by pair")
    compare.add_argument("first", metavar="COMMAND", help="a command line in quotes; no shell runs it")
    compare.add_argument("second", metavar="COMMAND", nargs="?", help="the command that it is compared with")
    compare.add_argument(
        "--checkouts",
        nargs=2,
        metavar="DIR",
        help="run one command with the package of the first checkout and with that of the second",
    )
    compare.add_argument("--repeats", type=positive, default=10, help="pairs that count, default 10")
    compare.add_argument("--output", metavar="FILE", help="write the numbers as JSON")
    device = subjects.add_parser("device", help="measure all that matters on a GPU")
    device.add_argument("--output", required=True, metavar="DIR", help="folder to write into")
    device.add_argument("--minutes", type=positive, default=25, help="time for all, default 25")
    device.add_argument("--small", action="store_true", help="small sizes, to try it")
    for subject in (codec, train, reading, compare, device):
        subject.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        default="configs/tiny.py",
        metavar="FILE",
        help="training config, default configs/tiny.py; its fields are set by --config.FIELD=VALUE",
    )


def _run(args: argparse.Namespace) -> int:
    if args.settings and args.subject not in ("train", "input"):
        raise UserError(
            f"unrecognized arguments: {' '.join(args.settings)}; settings are for cod benchmark train and input"
        )
    load_before = os.getloadavg()
    measure = {
        "codec": _measure_codec,
        "train": _measure_training,
        "input": _measure_input,
        "compare": _compare,
        "device": _measure_device,
    }
    measured = measure[args.subject](args)
    report = {
        "benchmark": args.subject,
        **measured,
        "load_average": {"before": load_before[0], "after": os.getloadavg()[0]},
    }

    from cod_jax.benchmarks import tables

    table = tables.table(report)
    for line in table.splitlines():
        frame.say(line)
    if args.subject == "device":
        files.write_bytes(Path(args.output) / "measured.txt", f"{table}\n".encode())
        return frame.DONE if all(one["state"] == "done" for one in report["measured"]) else frame.FAILED
    if args.output:
        files.write_bytes(args.output, (json.dumps(report, indent=2) + "\n").encode())
    return frame.DONE


def _measure_codec(args: argparse.Namespace) -> dict[str, Any]:
    from cod_jax.benchmarks.codec import report_on_codec

    source = {"model": args.model} if args.model else {"preset": args.preset}
    return report_on_codec(source, args.size, args.dtype, args.repeats)


def _compare(args: argparse.Namespace) -> dict[str, Any]:
    from cod_jax.benchmarks.pairs import compare_checkouts, compare_commands

    if (args.second is None) == (args.checkouts is None):
        raise UserError("expected two commands, or one command with --checkouts A B")
    if args.checkouts is None:
        return compare_commands(args.first, args.second, args.repeats)
    first, second = map(Path, args.checkouts)
    return compare_checkouts(first, second, args.first, args.repeats)


def _measure_device(args: argparse.Namespace) -> dict[str, Any]:
    from cod_jax.benchmarks.device import measure_device, measurements

    return {"measured": measure_device(Path(args.output), 60.0 * args.minutes, measurements(small=args.small))}


def _measure_training(args: argparse.Namespace) -> dict[str, Any]:
    from cod_jax.benchmarks.training import report_on_training

    for field, option in (("batch_size", "--batch-size"), ("data.image_size", "--image-size")):
        if any(name.split("=")[0] == f"--config.{field}" for name in args.settings):
            raise UserError(f"--config.{field} is not used; {option} says what is measured")
    return report_on_training(
        args.config,
        args.settings,
        image_size=args.image_size,
        batch_size=args.batch_size,
        repeats=args.repeats,
    )


def _measure_input(args: argparse.Namespace) -> dict[str, Any]:
    from cod_jax.benchmarks.reading import report_on_input

    return report_on_input(args.config, args.settings, batch_size=args.batch_size, repeats=args.repeats, rate=args.rate)


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.partition("x")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected a size such as 768x512, got {text!r}")
    return positive(width), positive(height)


COMMAND = Command(
    "measure speed and memory of training, its input, and the codec",
    _add_options,
    _run,
    EPILOG,
    trainer_arguments="settings",
)
