"""Turn a folder of photographs into resized ArrayRecord shards: `python -m data.prepare`."""

import argparse
import collections
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from cod_jax import files, images
from cod_jax.errors import UserError
from cod_jax.input import records, transforms

DONE, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130
NUM_NAMES_SHOWN = 10

EPILOG = """
examples:
  python -m data.prepare --source photos --output shards --size 288
  python -m data.prepare --source photos --output shards --size 512 --format png

Photographs are JPEG, PNG, WebP, TIFF, BMP or GIF files in the folder and all folders below it. They are turned upright,
converted to sRGB and shrunk until the shorter side has SIZE pixels; none is enlarged, smaller ones are skipped, and so
are animations. For random-resized crops choose SIZE above the size of the crops, for example 288 for crops of 256.
OUTPUT/manifest.json holds the counts, the skipped files with reasons, and names and checksum of each shard. Train on it
with --config.data.source=OUTPUT.

exit status:
  0  done; photographs that are too small may have been skipped
  1  done, but some files could not be read
  2  nothing was written: wrong usage, or no photograph can be used
"""


class _TooSmallError(ValueError):
    """The photograph would have to be enlarged."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(NOTHING_DONE, f"prepare: error: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status.
    """
    try:
        args = _build_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        with files.clean_exit_on_sigterm():
            num_images, too_small, unreadable = prepare(
                args.source,
                args.output,
                args.size,
                image_format=args.format,
                quality=args.quality,
                images_per_shard=args.images_per_shard,
                num_threads=args.threads,
                force=args.force,
            )
    except (OSError, ValueError) as error:
        print(files.printable(f"prepare: error: {files.reason(error)}"), file=sys.stderr)
        return NOTHING_DONE
    except KeyboardInterrupt:
        print("prepare: interrupted, nothing was written", file=sys.stderr)
        return INTERRUPTED
    _print_skipped("too small", too_small)
    _print_skipped("cannot be read", unreadable)
    skipped = f"skipped {len(too_small)} that are too small and {len(unreadable)} that cannot be read"
    print(files.printable(f"wrote {num_images} images to {args.output}, {skipped}", sys.stdout.encoding))
    return SOME_FAILED if unreadable else DONE


def prepare(
    source: str,
    output: str,
    size: int,
    *,
    image_format: str = "jpeg",
    quality: int = 95,
    images_per_shard: int = 4096,
    num_threads: int = 2,
    force: bool = False,
) -> tuple[int, dict[str, str], dict[str, str]]:
    """Write the photographs of a folder as shards of images whose shorter side has a given length.

    The output folder appears when it is complete. The result depends on the photographs and settings alone.

    Args:
        source: Folder of photographs.
        output: Folder to make.
        size: Length of the shorter side, pixels.
        image_format: "jpeg" (full colour resolution) or "png".
        quality: JPEG quality, 1 to 100.
        images_per_shard: Largest number of images in a shard.
        num_threads: Threads that decode, resize and encode.
        force: Replace an existing output, if an earlier run made it.

    Returns:
        The number of images written; the photographs skipped because they are too small, and those that cannot be read,
        by name with the reason.

    Raises:
        OSError: The source does not exist, or the output exists or cannot be written.
        UserError: No photograph can be used, or a setting is out of range.
    """
    for name, value in (("size", size), ("images per shard", images_per_shard), ("threads", num_threads)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    if not 1 <= quality <= 100:
        raise UserError(f"quality is {quality}; it must be from 1 to 100")
    names = files.find_images(source)
    if not names:
        raise UserError(f"{source} holds no {files.IMAGE_FORMATS} files; give a folder of photographs with --source")
    options = {"quality": quality, "subsampling": 0} if image_format == "jpeg" else {}
    too_small: dict[str, str] = {}
    unreadable: dict[str, str] = {}

    def convert(name: str) -> bytes | None:
        try:
            image_uint8 = images.to_uint8_rgb(files.read_bytes(Path(source, name)), name, warn=False)
            height, width = image_uint8.shape[:2]
            if min(height, width) < size:
                raise _TooSmallError(f"{width}x{height} is smaller than {size}")
            return images.encode(transforms.resize_short_edge(image_uint8, size), image_format, **options)
        except _TooSmallError as error:
            too_small[name] = str(error)
        except (OSError, ValueError) as error:
            unreadable[name] = str(error).removeprefix(f"{name}: ")
        return None

    with files.new_directory(output, force=force, marker=records.MANIFEST_NAME) as folder:
        converted = _map_in_order(convert, names, num_threads)
        pairs = zip(names, tqdm(converted, total=len(names), unit="image", disable=None), strict=True)
        shards = records.write_shards(folder, ((n, data) for n, data in pairs if data is not None), images_per_shard)
        skipped = dict(sorted((too_small | unreadable).items()))
        if not shards:
            name, reason = next(iter(skipped.items()))
            raise UserError(
                f"{source}: none of the {len(names)} photographs can be used (for example {name}: {reason}); "
                "give larger or intact photographs, or a smaller --size"
            )
        settings = {"size": size, "format": image_format, **({"quality": quality} if options else {})}
        records.write_manifest(folder, shards, skipped, settings)
    return len(names) - len(skipped), dict(sorted(too_small.items())), dict(sorted(unreadable.items()))


def _map_in_order(
    function: Callable[[str], bytes | None], names: Sequence[str], num_threads: int
) -> Iterator[bytes | None]:
    """Call a function in threads and yield the results in order, holding only a few at a time."""
    with futures.ThreadPoolExecutor(num_threads) as executor:
        pending: collections.deque[futures.Future[bytes | None]] = collections.deque()
        for name in names:
            pending.append(executor.submit(function, name))
            if len(pending) >= 4 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _print_skipped(title: str, skipped: dict[str, str]) -> None:
    for name, reason in list(skipped.items())[:NUM_NAMES_SHOWN]:
        print(files.printable(f"skipped, {title}: {name}: {reason}"), file=sys.stderr)
    if len(skipped) > NUM_NAMES_SHOWN:
        hidden = len(skipped) - NUM_NAMES_SHOWN
        print(f"skipped, {title}: {hidden} more, named in {records.MANIFEST_NAME}", file=sys.stderr)


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="python -m data.prepare",
        description="Turn a folder of photographs into resized ArrayRecord shards for training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--source", required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--size", required=True, type=int, metavar="N", help="length of the shorter side, pixels")
    parser.add_argument("--format", choices=("jpeg", "png"), default="jpeg", help="how images are stored (jpeg)")
    parser.add_argument("--quality", type=int, default=95, metavar="Q", help="JPEG quality, 1 to 100 (95)")
    parser.add_argument("--images-per-shard", type=int, default=4096, metavar="N", help="at most (4096)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="(one per CPU core)")
    parser.add_argument("--force", action="store_true", help="replace the output of an earlier run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
