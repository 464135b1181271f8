"""`cod compress`: compress pictures to `.cod` files."""

import argparse
import functools
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.commands import compressed_files, frame
from cod_jax.commands.conversion import Converter, add_conversion_arguments, convert_files
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_rate_arguments, chosen_rate
from cod_jax.errors import UserError
from cod_jax.image_search import find_images
from cod_jax.model_folder.included import model_path

EPILOG = f"""
examples:
  cod compress photo.jpg                        writes photo.cod beside photo.jpg, with the included model
  cod compress photo.jpg --bpp 0.1              at the best quality within 0.1 bits per pixel
  cod compress photo.jpg --max-bytes 5000       at the best quality within 5000 bytes
  cod compress -m MODEL photo.jpg               with another model
  cod compress -m MODEL photo.jpg -o small.cod
  cod compress -m MODEL photos/*.jpg -o out/    writes out/NAME.cod for each
  cod compress -m MODEL -r photos -o out        writes out/FOLDER/NAME.cod for all pictures below photos
  cod compress -m MODEL - < photo.jpg > photo.cod

Pictures are {files.IMAGE_FORMATS} files; animations are refused.
Transparency is composited on white. Where names differ in their suffix only, files keep it: a.jpg.cod and a.png.cod.
--json prints a line of JSON for each file, with input, output, width, height, file_bytes and bits_per_pixel, or input
and error.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_conversion_arguments(parser, compressed_files.SUFFIX, model_text="default: the included model compact")
    add_rate_arguments(parser)


def _run(args: argparse.Namespace) -> int:
    args.model = str(model_path(args.model))

    def check(codec: Any) -> None:
        from cod_jax.coding import stream

        stream.checked_quality(args.quality, codec.num_levels)

    def convert(codec: Any, content: bytes, name: str) -> tuple[bytes, dict[str, Any]]:
        from cod_jax import images

        check_size = functools.partial(codec.check_size, layout=args.format)
        try:
            image_uint8 = images.to_uint8_rgb(content, name, check_size=check_size)
        except UserError as error:
            if not compressed_files.looks_compressed(content, name):
                raise
            raise UserError("expected a picture, got a .cod file; decompress it first") from error
        data = codec.compress(image_uint8, **chosen_rate(args), layout=args.format)
        height, width, _ = image_uint8.shape
        rate = 8 * len(data) / (height * width)
        return data, {"width": width, "height": height, "file_bytes": len(data), "bits_per_pixel": rate}

    converter = Converter(
        suffix=compressed_files.SUFFIX,
        find=find_images,
        read=lambda source: frame.read_data() if source is None else files.read_bytes(source),
        choose=lambda content: Path(args.model),
        convert=convert,
        is_ours=lambda target: compressed_files.is_compressed(target, args.format),
        check=check,
    )
    return convert_files(args, converter)


COMMAND = Command("compress pictures to .cod files", _add_options, _run, EPILOG, device="shared")
