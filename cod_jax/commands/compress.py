"""`cod compress`: compress pictures to `.cod` files."""

import argparse
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.commands import compressed_files
from cod_jax.commands.conversion import add_conversion_arguments, convert_files
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_quality_argument
from cod_jax.errors import UserError

EPILOG = f"""
examples:
  cod compress -m MODEL photo.jpg               writes photo.cod beside photo.jpg
  cod compress -m MODEL photo.jpg -o small.cod
  cod compress -m MODEL photos/*.jpg -o out/    writes out/NAME.cod for each

Pictures are {files.IMAGE_FORMATS} files; animations are refused. Transparency is composited on white.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_conversion_arguments(parser, compressed_files.SUFFIX)
    add_quality_argument(parser)


def _run(args: argparse.Namespace) -> int:
    def check(codec: Any) -> None:
        from cod_jax.coding import stream

        stream.checked_quality(args.quality, codec.num_levels)

    def convert(codec: Any, source: Path) -> tuple[bytes, str]:
        from cod_jax import images

        try:
            image_uint8 = images.to_uint8_rgb(source)
        except UserError as error:
            if not compressed_files.looks_compressed(source):
                raise
            raise UserError("expected a picture, got a .cod file; decompress it first") from error
        data = codec.compress(image_uint8, quality=args.quality, layout=args.format)
        height, width, _ = image_uint8.shape
        rate = 8 * len(data) / (height * width)
        return data, f"{width}x{height}, {len(data)} bytes, {rate:.4g} bits per pixel"

    return convert_files(args, compressed_files.SUFFIX, convert, check)


COMMAND = Command("compress pictures to .cod files", _add_options, _run, EPILOG, device="shared")
