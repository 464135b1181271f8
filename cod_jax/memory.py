"""Say what a training run will hold per device, and compile its step, on devices that need not be there."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from cod_jax.errors import UserError

DESCRIPTION = "Say how many bytes a training run holds on each device, exactly, from shapes and shardings."
EXAMPLES = """
examples:
  python -m cod_jax.memory --config configs/pixel.py:2 --mesh 1x1x1 1x8x1 8x32x1
  python -m cod_jax.memory --config configs/pixel.py:2 --mesh 2x4x1 --compile --config.batch_size=8

A mesh is data x fsdp x tensor. The devices need not exist. --compile also compiles the step for as many virtual CPU
devices and adds what it needs besides: an estimate for other devices, whose compilers fuse differently.
"""
COLUMNS = ("parameters", "average", "optimizer", "frozen", "total")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 done, 2 usage or settings that cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cod_jax.memory",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:PRESET]", help="settings, as for the trainer")
    parser.add_argument(
        "--mesh", type=_mesh, nargs="+", default=[(1, 1, 1)], metavar="DxFxT", help="device meshes; default 1x1x1"
    )
    parser.add_argument("--compile", action="store_true", help="compile the step too, for virtual CPU devices")
    try:
        args, fields = parser.parse_known_args(argv)
        unknown = [name for name in fields if not name.startswith("--config.")]
        if unknown:
            parser.error(f"unknown argument {unknown[0]}")
    except SystemExit as stop:
        return int(stop.code or 0)
    # Before JAX looks for devices; the accelerator, if there is one, is not touched.
    os.environ["JAX_PLATFORMS"] = "cpu"
    count = max(math.prod(mesh) for mesh in args.mesh) if args.compile else 1
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"

    from cod_jax import train

    try:
        values = train.parse_arguments([f"--config={args.config}", *fields]).config.to_dict()
        rows = [_measure(values, mesh, args.compile) for mesh in args.mesh]
    except (UserError, train.UsageError) as error:
        print(f"cod_jax.memory: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"MiB per device, {args.config}; all but the frozen networks is float32")
    names = ("mesh", "devices", *COLUMNS, *(["step (compiled for CPUs)"] if args.compile else []))
    print("| " + " | ".join(names) + " |")
    print("| " + " | ".join("---" for _ in names) + " |")
    for mesh, row in zip(args.mesh, rows, strict=True):
        cells = ["x".join(map(str, mesh)), str(math.prod(mesh)), *(f"{value / 2**20:,.1f}" for value in row)]
        print("| " + " | ".join(cells) + " |")
    return 0


def _measure(values: dict[str, Any], mesh: tuple[int, int, int], compiled: bool) -> list[int]:
    """Bytes per device: parameters, their average, the optimizer, frozen networks, all; and of a compiled step."""
    import jax

    from cod_jax.parallel import MeshConfig, abstract_mesh, batch_sharding, check_batch_size, make_mesh, sharding_rows
    from cod_jax.training.config import TrainConfig
    from cod_jax.training.plan import compile_step, make_plan

    config = TrainConfig.from_dict(values)
    devices = MeshConfig(*mesh)
    where = make_mesh(devices, jax.devices()[: math.prod(mesh)]) if compiled else abstract_mesh(devices)
    plan = make_plan(config, where)

    def held(shapes: Any, shardings: Any) -> int:
        return sum(row.bytes_per_device for row in sharding_rows(shapes, shardings))

    parts = [held(plan.shapes[item], plan.shardings[item]) for item in ("params", "ema", "optimizer")]
    frozen = held(plan.frozen_shapes, plan.frozen_shardings)
    result = [*parts, frozen, held(plan.shapes, plan.shardings) + frozen]
    if compiled:
        batch = batch_sharding(make_mesh(devices, jax.devices()[: math.prod(mesh)]), config.sharding.batch)
        check_batch_size("batch_size / accumulation_steps", config.batch_size // config.accumulation_steps, batch)
        steps = [compile_step(plan, config, update, batch) for update in plan.objective.updates]
        result.append(max(step.memory_analysis().temp_size_in_bytes for step in steps))  # pyright: ignore[reportFunctionMemberAccess]
    return result


def _mesh(text: str) -> tuple[int, int, int]:
    try:
        data, fsdp, tensor = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not data x fsdp x tensor, such as 1x8x1") from None
    if min(data, fsdp, tensor) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: every axis of a mesh has at least one device")
    return data, fsdp, tensor


if __name__ == "__main__":
    sys.exit(main())
