"""`cod prepare`: turn photographs into resized shards for training, a folder of them or a published data set."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import positive
from cod_jax.cores import num_cores
from cod_jax.errors import UserError

NUM_NAMES_SHOWN = 10
EPILOG = """
examples:
  cod prepare --source photos --output shards --size 288
  cod prepare --source photos --output shards --size 512 --format png
  cod prepare --dataset sa1b --source /raw/sa1b --output datasets --size 256 --workers 16
  cod prepare --dataset folder --name holidays --source photos --output datasets --size 512
  cod prepare --dataset openimages --source gs://BUCKET/openimages --output gs://BUCKET/datasets --size 512 \\
    -- --runner=DataflowRunner --project=PROJECT --region=REGION --temp_location=gs://BUCKET/temp

Photographs are JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF files in the folder and all folders below it. They are turned
upright, converted to sRGB and shrunk until the shorter side is as long as --size. None is enlarged: smaller ones
are skipped, and so are animations. For random-resized crops choose a size above that of the crops, for example 288 for
crops of 256. In the output folder, manifest.json holds the counts, the skipped files with reasons, and the name and
checksum of each shard. Train on the shards with --config.data.source and the output folder.

With --dataset, an Apache Beam pipeline makes a dataset of tensorflow-datasets out of the raw files that you have
downloaded: of imagenet21k (winter 2021), openimages (V7) or sa1b, or of any folder. It is OUTPUT/NAME/SIZE/1.0.0. The
same command resumes where it was stopped. --workers processes of this machine do the work; options of Beam after --
give it to a cluster. Train on it with --config.data.source=OUTPUT/NAME/SIZE/1.0.0.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", required=True, metavar="DIR", help="folder of photographs, or of the raw files, or its address"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to make, or of all datasets, or an address such as gs://bucket/shards",
    )
    parser.add_argument("--size", required=True, type=int, metavar="N", help="length of the shorter side, pixels")
    parser.add_argument(
        "--format", choices=("jpeg", "png"), default="jpeg", help="how images are stored; default: jpeg"
    )
    parser.add_argument("--quality", type=int, metavar="Q", help="JPEG quality, 1 to 100; default: 95")
    parser.add_argument(
        "--images-per-shard", type=int, default=4096, metavar="N", help="most images in a shard; default: 4096"
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads; default: one per CPU core, with --dataset one in each worker",
    )
    parser.add_argument("--force", action="store_true", help="replace the output of an earlier run")
    dataset = parser.add_argument_group("large collections, with Apache Beam")
    dataset.add_argument(
        "--dataset",
        choices=("folder", "imagenet21k", "openimages", "sa1b"),
        help="make a dataset of tensorflow-datasets from this raw data",
    )
    dataset.add_argument("--name", help="name of the dataset made of a folder")
    dataset.add_argument(
        "--workers", type=positive, metavar="N", help="processes on this machine; default: one per CPU core"
    )
    dataset.add_argument("--partial", action="store_true", help="accept that archives of the raw data are missing")
    dataset.add_argument(
        "--skip-damaged", action="store_true", help="leave out what cannot be read of damaged archives"
    )


def _run(args: argparse.Namespace) -> int:
    if args.dataset is not None:
        return _prepare_dataset(args)
    for name in ("name", "workers", "partial", "skip_damaged"):
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} is for --dataset; leave it out")
    if args.trainer:
        raise UserError(f"{args.trainer[0]} after -- is an option of Apache Beam, which --dataset uses; leave it out")
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
        num_threads=num_cores() if args.threads is None else args.threads,
        force=args.force,
    )
    _print_skipped("too small", too_small)
    _print_skipped("cannot be read", unreadable)
    return _tell(num_images, args.output, len(too_small), len(unreadable))


def _prepare_dataset(args: argparse.Namespace) -> int:
    if args.format != "jpeg":
        raise UserError(f"expected --format jpeg with --dataset, got {args.format}; leave it out")
    if (args.dataset == "folder") != (args.name is not None):
        raise UserError("expected --name with --dataset folder, and only there: other datasets have names")
    for name in ("threads", "images_per_shard"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"expected --{name.replace('_', '-')} to be at least 1, got {value}")

    with _without_log():
        from cod_jax.datasets.preparation import prepare

    result = prepare(
        args.dataset,
        args.source,
        args.output,
        args.size,
        name=args.name,
        quality=args.quality,
        images_per_shard=args.images_per_shard,
        num_workers=args.workers or num_cores(),
        num_threads=args.threads or 1,
        partial=args.partial,
        skip_damaged=args.skip_damaged,
        force=args.force,
        options=args.trainer,
    )
    _print_skipped("damaged archive", result.damaged)
    _print_skipped("cannot be read", result.unreadable)
    if result.is_old:
        frame.say(f"{result.folder} is made of these files already, so there was nothing to do; what that run said:")
    status = _tell(result.num_images, result.folder, result.num_too_small, len(result.unreadable))
    return status or (frame.FAILED if result.damaged else frame.DONE)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Leave out what is logged while Beam is imported: that packages of clouds are not there."""
    handlers = list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        logging.root.handlers[:] = handlers


def _tell(num_images: int, output: str, num_too_small: int, num_unreadable: int) -> int:
    """Print the counts, and return the exit status."""
    skipped = f"skipped {num_too_small} that are too small and {num_unreadable} that cannot be read"
    frame.say(f"wrote {num_images} images to {output}, {skipped}")
    return frame.FAILED if num_unreadable else frame.DONE


def _print_skipped(title: str, skipped: dict[str, str]) -> None:
    for name, reason in list(skipped.items())[:NUM_NAMES_SHOWN]:
        print(files.printable(f"skipped, {title}: {name}: {reason}"), file=sys.stderr)
    if len(skipped) > NUM_NAMES_SHOWN:
        hidden = len(skipped) - NUM_NAMES_SHOWN
        print(f"skipped, {title}: {hidden} more, named in manifest.json", file=sys.stderr)


COMMAND = Command(
    "turn photographs into shards for training",
    _add_options,
    _run,
    EPILOG,
    trainer_arguments="after --",
    behind="Apache Beam",
    addresses=("source", "output"),
)
