"""`cod memory`: say how much memory a training run will hold on each device."""

import argparse
import math
import os

from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_list

EPILOG = """
examples:
  cod memory --config configs/compact.py
  cod memory --config configs/pixel.py:2 --mesh 1x1x1 1x8x1 8x32x1
  cod memory --config configs/pixel.py:2 --mesh 2x4x1 --compile --config.batch_size=8

A mesh is data x fsdp x tensor. The devices need not exist. --compile also compiles the step for as many virtual CPU
devices and adds what it needs on top of that: only an estimate for other devices, whose compilers fuse differently.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:OPTIONS]", help="settings, as for cod train")
    add_list(parser, "--mesh", _mesh, default=[(1, 1, 1)], metavar="DxFxT", help="device meshes; default 1x1x1")
    parser.add_argument("--compile", action="store_true", help="compile the step too, for virtual CPU devices")


def _run(args: argparse.Namespace) -> int:
    # Before JAX looks for devices; the accelerator, if there is one, is not touched.
    os.environ["JAX_PLATFORMS"] = "cpu"
    count = max(math.prod(mesh) for mesh in args.mesh) if args.compile else 1
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"

    from cod_jax.training.config import TrainConfig
    from cod_jax.training.config_files import read_settings
    from cod_jax.training.memory import COLUMNS, bytes_per_device

    config = TrainConfig.from_dict(read_settings(args.config, args.settings), trusted=True)
    rows = [bytes_per_device(config, mesh, compiled=args.compile) for mesh in args.mesh]
    frame.say(f"MiB per device, {args.config}; everything except the frozen networks is float32")
    names = ("mesh", "devices", *COLUMNS, *(["step (compiled for CPUs)"] if args.compile else []))
    frame.say("| " + " | ".join(names) + " |")
    frame.say("| " + " | ".join("---" for _ in names) + " |")
    for mesh, row in zip(args.mesh, rows, strict=True):
        cells = ["x".join(map(str, mesh)), str(math.prod(mesh)), *(f"{value / 2**20:,.1f}" for value in row)]
        frame.say("| " + " | ".join(cells) + " |")
    return frame.DONE


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
