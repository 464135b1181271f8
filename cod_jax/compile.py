"""Compile a model for decoding in one step: `python -m cod_jax.compile --model DIR --output DIR`."""

import argparse
import sys
from collections.abc import Sequence

from cod_jax.errors import UserError

DESCRIPTION = (
    "Write a model as compiled programs that encode, and decode in one step, without the model's code: CoD-Lite or "
    "pixel CoD, with a codebook or a factorized bottleneck, but no model on latents and no 64-bit codec."
)
EXAMPLES = """
examples:
  python -m cod_jax.compile --model models/lite --output compiled/lite
  python -m cod_jax.compile --model models/lite --output compiled/lite --dtype bfloat16 --platforms cuda

In Python: codec = cod_jax.runtime.load("compiled/lite"); codec.compress(image), codec.decompress(data). Files are the
same as those of the model, with all its quality levels (codec.compress(image, quality=1)). The folder holds programs
for pictures of any size and for every platform named, none of which needs to be present here; each machine compiles
them further at the first picture of a size and keeps the result.

What is constant at t = 0 and zero noise is folded into the weights. In float32 the pictures are those of cod decompress
--steps 1; bfloat16 is for accelerators (on CPUs it is slower) and differs by rounding, also in the symbols it writes.
"""
PLATFORMS = ("cpu", "cuda", "tpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 done, 1 failed, 2 usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cod_jax.compile",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder, as written by cod_jax.export")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--platforms",
        nargs="+",
        choices=(*PLATFORMS, "rocm"),
        default=PLATFORMS,
        metavar="NAME",
        help="where it shall run: cpu, cuda, tpu, rocm; default: cpu cuda tpu",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the computation and of the weights, default float32",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing folder of a compiled model")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)

    from cod_jax import files
    from cod_jax.model_folder.bundle import load_bundle
    from cod_jax.specialize.folder import write_compiled

    try:
        with files.clean_exit_on_sigterm():
            bundle = load_bundle(args.model)
            platforms = list(dict.fromkeys(args.platforms))
            description = write_compiled(args.output, bundle, platforms=platforms, dtype=args.dtype, force=args.force)
    except (UserError, OSError) as error:
        print(files.printable(f"cod_jax.compile: error: {files.reason(error)}"), file=sys.stderr)
        return 1
    num_bytes = sum(facts.num_bytes for facts in description.files.values())
    if bundle.decoding.num_steps > 1:
        print(f"note: the model decodes in {bundle.decoding.num_steps} steps by default; compiled, it takes one")
    line = (
        f"wrote {args.output}: {args.dtype} for {', '.join(platforms)}, {len(description.programs)} programs and the "
        f"weights in {num_bytes / 1e6:.1f} MB, fingerprint {bundle.symbol_coder().fingerprint[:16]}"
    )
    print(files.printable(line, sys.stdout.encoding))
    return 0


if __name__ == "__main__":
    sys.exit(main())
