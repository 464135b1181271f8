"""`cod decompress`: decompress `.cod` files to PNG pictures."""

import argparse
from pathlib import Path
from typing import Any

from cod_jax.commands import compressed_files
from cod_jax.commands.conversion import add_conversion_arguments, convert_files
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_decoding_arguments, add_seed_argument, chosen_decoding

SUFFIX = ".png"
EPILOG = """
examples:
  cod decompress -m MODEL photo.cod             writes photo.png beside photo.cod
  cod decompress -m MODEL photo.cod -o back.png
  cod decompress -m MODEL out/*.cod -o back/    writes back/NAME.png for each
  cod decompress -m MODEL photo.cod --steps 1   as close to the original as the model can
  cod decompress -m MODEL photo.cod --steps 25 --seed 7

Decompress with the model that compressed. With two or more steps a picture starts from noise: another seed gives
another texture, and the same seed the same picture on any device, up to rounding. cod info MODEL shows the defaults of
a model.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_conversion_arguments(parser, SUFFIX)
    add_decoding_arguments(parser, default="the model's")
    add_seed_argument(parser)


def _run(args: argparse.Namespace) -> int:
    def convert(codec: Any, source: Path) -> tuple[bytes, str]:
        from cod_jax import images

        data = compressed_files.read(source)
        image_uint8 = codec.decompress(data, layout=args.format, **chosen_decoding(args))
        return images.encode(image_uint8, "PNG"), f"{image_uint8.shape[1]}x{image_uint8.shape[0]}"

    return convert_files(args, SUFFIX, convert)


COMMAND = Command("decompress .cod files to PNG pictures", _add_options, _run, EPILOG, device="shared")
