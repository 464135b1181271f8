"""`cod memory`: say how much memory a training run will hold on each device."""

import argparse
import math
import os
from typing import TYPE_CHECKING

from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_list
from cod_jax.errors import UserError

if TYPE_CHECKING:
    from cod_jax.training.memory import Step

EPILOG = """
examples:
  cod memory --config configs/compact.py
  cod memory --config configs/pixel.py:2 --mesh 1x1x1 1x8x1 8x32x1
  cod memory --config configs/pixel.py:2 --mesh 2x4x1 --compile --config.batch_size=8
  cod memory --config configs/pixel.py:2 --mesh 1x8x1 --compile --on "NVIDIA H200"

A mesh is data x fsdp x tensor. The devices need not exist. --compile also compiles the step for as many virtual CPU
devices. It adds what the step needs on top of that, what the devices send each other, and the operations for each byte
sent: only estimates for other devices, whose compilers fuse differently. --on also predicts the time of a step and of
the whole run, from the peak rates in the vendors' data sheets: --efficiency of that of products, and all of that of
sending. Sending may overlap with products or not, which gives the two ends of the range.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:OPTIONS]", help="settings, as for cod train")
    meshes = "device meshes, data x fsdp x tensor; default 1x1x1"
    add_list(parser, "--mesh", _mesh, default=[(1, 1, 1)], metavar="DxFxT", help=meshes)
    parser.add_argument("--compile", action="store_true", help="compile the step too, for virtual CPU devices")
    parser.add_argument(
        "--on", metavar="DEVICE", help='predict the time of a step on devices of this kind, such as "NVIDIA H200"'
    )
    parser.add_argument(
        "--efficiency",
        type=_share,
        default=0.4,
        metavar="X",
        help="share of the peak FLOP/s that matrix products reach, above 0 and at most 1; default: 0.4",
    )


def _run(args: argparse.Namespace) -> int:
    if args.on is not None and not args.compile:
        raise UserError("--on needs the compiled step; add --compile")
    # Before JAX looks for devices; the accelerator, if there is one, is not touched.
    os.environ["JAX_PLATFORMS"] = "cpu"
    count = max(math.prod(mesh) for mesh in args.mesh) if args.compile else 1
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"

    from cod_jax.training.config import TrainConfig
    from cod_jax.training.config_files import read_settings
    from cod_jax.training.flops import SENT_BYTES_PER_SECOND
    from cod_jax.training.memory import COLUMNS, bytes_per_device, compiled, unfit_batch

    config = TrainConfig.from_dict(read_settings(args.config, args.settings), trusted=True)
    if args.on is not None and args.on not in SENT_BYTES_PER_SECOND:
        raise UserError(f"expected --on to be one of {', '.join(SENT_BYTES_PER_SECOND)}, got {args.on}")
    steps = [compiled(config, mesh) if args.compile else None for mesh in args.mesh]
    rows = [
        [*bytes_per_device(config, mesh), *([] if step is None else [step.temporary_bytes])]
        for mesh, step in zip(args.mesh, steps, strict=True)
    ]
    frame.say(f"MiB per device, {args.config}; everything except the frozen networks is float32")
    names = ("mesh", "devices", *COLUMNS, *(["step (compiled for CPUs)"] if args.compile else []))
    frame.say("| " + " | ".join(names) + " |")
    frame.say("| " + " | ".join("---" for _ in names) + " |")
    for mesh, row in zip(args.mesh, rows, strict=True):
        cells = ["x".join(map(str, mesh)), str(math.prod(mesh)), *(f"{value / 2**20:,.1f}" for value in row)]
        frame.say("| " + " | ".join(cells) + " |")
    for mesh in args.mesh:
        if why := unfit_batch(config, mesh):
            frame.say(f"{'x'.join(map(str, mesh))}: a run would end: {why}")
    for mesh, step in zip(args.mesh, steps, strict=True):
        if step is not None:
            _describe(mesh, step, args.on, args.efficiency, config.total_steps)
    return frame.DONE


def _describe(mesh: tuple[int, int, int], step: "Step", kind: str | None, efficiency: float, total_steps: int) -> None:
    """Print what a step sends, and how long it takes on devices of a kind."""
    from cod_jax.training.flops import SENT_BYTES_PER_SECOND, peak_flops_per_second

    name, count = "x".join(map(str, mesh)), math.prod(mesh)
    kinds = ", ".join(f"{one.count} {one.kind} {one.sent_bytes / 2**20:,.1f}" for one in step.traffic) or "nothing"
    per_byte = f"; {step.flops / count / step.sent_bytes:,.0f} operations per byte sent" if step.sent_bytes else ""
    frame.say(f"{name}: each device sends {step.sent_bytes / 2**20:,.1f} MiB in a step ({kinds}){per_byte}")
    if kind is None:
        return
    computing = step.flops / count / ((peak_flops_per_second(kind) or 1.0) * efficiency)
    sending = step.sent_bytes / SENT_BYTES_PER_SECOND[kind]
    low, high = max(computing, sending), computing + sending
    frame.say(
        f"{name} of {kind}: {computing:.3g} s of products at {100 * efficiency:.0f} % of their peak and "
        f"{sending:.3g} s of sending, so {low:.3g} to {high:.3g} s a step, "
        f"{_duration(low * total_steps)} to {_duration(high * total_steps)} for {total_steps:,} steps"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:,.0f} {unit}" if count >= 100 else f"{count:.3g} {unit}"
    return f"{seconds:.3g} s"


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, got {text!r}")
    return share


def _mesh(text: str) -> tuple[int, int, int]:
    try:
        data, fsdp, tensor = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected data x fsdp x tensor, such as 1x8x1, got {text!r}") from None
    if min(data, fsdp, tensor) < 1:
        raise argparse.ArgumentTypeError(f"expected at least one device on every axis of a mesh, got {text!r}")
    return data, fsdp, tensor


COMMAND = Command(
    "say how much memory a training run holds on each device",
    _add_options,
    _run,
    EPILOG,
    device="shared",
    trainer_arguments="settings",
)
