"""`cod prepare`: turn a folder of photographs into resized shards for training."""

import argparse
import os
import sys

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.errors import UserError

NUM_NAMES_SHOWN = 10
EPILOG = """
examples:
  cod prepare --source photos --output shards --size 288
  cod prepare --source photos --output shards --size 512 --format png

Photographs are JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF files in the folder and all folders below it. They are turned
upright, converted to sRGB and shrunk until the shorter side is as long as --size. None is enlarged: smaller ones
are skipped, and so are animations. For random-resized crops choose a size above that of the crops, for example 288 for
crops of 256. In the output folder, manifest.json holds the counts, the skipped files with reasons, and the name and
checksum of each shard. Train on the shards with --config.data.source and the output folder.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--size", required=True, type=int, metavar="N", help="length of the shorter side, pixels")
    parser.add_argument(
        "--format", choices=("jpeg", "png"), default="jpeg", help="how images are stored; default: jpeg"
    )
    parser.add_argument("--quality", type=int, metavar="Q", help="JPEG quality, 1 to 100; default: 95")
    parser.add_argument(
        "--images-per-shard", type=int, default=4096, metavar="N", help="most images in a shard; default: 4096"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="threads; default: one per CPU core"
    )
    parser.add_argument("--force", action="store_true", help="replace the output of an earlier run")


def _run(args: argparse.Namespace) -> int:
    if args.format == "png" and args.quality is not None:
        raise UserError("--quality has no effect with --format png; leave it out")
    files.check_not_around(args.output, args.source)

    from cod_jax.input.prepare import prepare

    num_images, too_small, unreadable = prepare(
        args.source,
        args.output,
        args.size,
        image_format=args.format,
        quality=95 if args.quality is None else args.quality,
        images_per_shard=args.images_per_shard,
        num_threads=args.threads,
        force=args.force,
    )
    _print_skipped("too small", too_small)
    _print_skipped("cannot be read", unreadable)
    skipped = f"skipped {len(too_small)} that are too small and {len(unreadable)} that cannot be read"
    frame.say(f"wrote {num_images} images to {args.output}, {skipped}")
    return frame.FAILED if unreadable else frame.DONE


def _print_skipped(title: str, skipped: dict[str, str]) -> None:
    for name, reason in list(skipped.items())[:NUM_NAMES_SHOWN]:
        print(files.printable(f"skipped, {title}: {name}: {reason}"), file=sys.stderr)
    if len(skipped) > NUM_NAMES_SHOWN:
        hidden = len(skipped) - NUM_NAMES_SHOWN
        print(f"skipped, {title}: {hidden} more, named in manifest.json", file=sys.stderr)


COMMAND = Command("turn a folder of photographs into shards for training", _add_options, _run, EPILOG)
