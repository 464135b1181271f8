"""`cod compile`: write a model as compiled programs that decode in one step."""

import argparse
from pathlib import Path

from cod_jax import storage
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_list, add_model_argument, one_of
from cod_jax.model_folder import places
from cod_jax.runtime.folder import DESCRIPTION_FILE

EPILOG = """
examples:
  cod compile --model compact --output compiled/compact
  cod compile --model models/lite --output compiled/lite
  cod compile --model models/lite --output compiled/lite --dtype bfloat16 --platforms cuda

In Python: codec = cod_jax.load("compiled/lite"); codec.compress(image), codec.decompress(data). Files are the
same as those of the model, with all its quality levels (codec.compress(image, quality=1)). The folder holds programs
for pictures of any size and for every platform named, none of which needs to be present here; each machine compiles
them further at the first picture of a size and keeps the result.

The programs are read by native code, so a folder must be trusted. If it travels by ways that others can write to, pass
the SHA-256 that is printed here: cod_jax.load("compiled/lite", sha256="..."). Then any change is refused.

What is constant at t = 0 and zero noise is folded into the weights. In float32 the pictures are those of cod decompress
--steps 1; bfloat16 is for accelerators (on CPUs it is slower) and differs by rounding, also in the symbols it writes.
"""
PLATFORMS = ("cpu", "cuda", "tpu")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write, or an address such as gs://bucket/compiled/lite",
    )
    add_list(
        parser,
        "--platforms",
        one_of((*PLATFORMS, "rocm")),
        default=PLATFORMS,
        metavar="NAME",
        help="platforms to run on: cpu, cuda, tpu, rocm; default: cpu cuda tpu",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the computation and of the weights, default float32",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing folder of a compiled model")


def _run(args: argparse.Namespace) -> int:
    # What can be found out before JAX is imported, which takes seconds.
    storage.check_new_directory(args.output, args.force, DESCRIPTION_FILE)
    places.check_place(Path(args.model))

    from cod_jax.model_folder.bundle import load_bundle
    from cod_jax.specialize.folder import write_compiled

    bundle = load_bundle(args.model)
    description = write_compiled(args.output, bundle, platforms=args.platforms, dtype=args.dtype, force=args.force)
    num_bytes = sum(facts.num_bytes for facts in description.files.values())
    if bundle.decoding.num_steps > 1:
        frame.say(f"note: the model decodes in {bundle.decoding.num_steps} steps by default; compiled, it takes one")
    frame.say(
        f"wrote {args.output}: {args.dtype} for {', '.join(args.platforms)}, {len(description.programs)} programs and "
        f"the weights in {num_bytes / 1e6:.1f} MB, fingerprint {bundle.symbol_coder().fingerprint[:16]}"
    )
    frame.say(f"sha256 {description.sha256}")
    return frame.DONE


COMMAND = Command(
    "compile a model for decoding in one step", _add_options, _run, EPILOG, device="shared", addresses=("output",)
)
