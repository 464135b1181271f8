"""`cod decompress`: decompress `.cod` files to PNG pictures."""

import argparse
import functools
from pathlib import Path
from typing import Any

from cod_jax.commands import compressed_files
from cod_jax.commands.conversion import Converter, add_conversion_arguments, convert_files
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_decoding_arguments, add_seed_argument, chosen_decoding, whole_number
from cod_jax.errors import UserError
from cod_jax.image_search import find_files

SUFFIX = ".png"
# Before the suffix of pictures beside their files, where photo.png may well be the original.
BESIDE = ".decoded"
# A text in the pictures, by which they are known when --force is to replace them.
SOFTWARE = {"Software": "cod_jax"}
# Of PNG: takes less than half the time of the usual 6, for files of the same length or shorter.
COMPRESS_LEVEL = 3
EPILOG = """
examples:
  cod decompress photo.cod                      writes photo.decoded.png beside it, with the model it names
  cod decompress -m MODEL photo.cod
  cod decompress -m MODEL photo.cod -o back.png
  cod decompress -m MODEL out/*.cod -o back/    writes back/NAME.png for each
  cod decompress -m MODEL -r out -o back        writes back/FOLDER/NAME.png for all files below out
  cod decompress -m MODEL - < photo.cod > back.png
  cod decompress -m MODEL photo.cod --steps 1   as close to the original as the model can
  cod decompress -m MODEL photo.cod --steps 25 --seed 7
  cod decompress photo.cod --coded-steps 10     a file of mode diffc, after 10 of its steps

Decompress with the model that compressed. With two or more steps a picture starts from noise: another seed gives
another texture, and the same seed the same picture on any device, up to rounding. cod info MODEL shows the defaults of
a model. --json prints a line of JSON for each file, with input, output, width and height, or input and error.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_conversion_arguments(
        parser,
        SUFFIX,
        model_text="default: the model that each file names, an included one or one in COD_JAX_MODELS",
    )
    add_decoding_arguments(parser, default="the model's")
    add_seed_argument(parser)
    parser.add_argument(
        "--coded-steps",
        type=whole_number,
        metavar="K",
        help="of files of mode diffc, show the picture after the first K coded steps, from 0; default: all",
    )


def _run(args: argparse.Namespace) -> int:
    if args.model is None and args.format != "cod":
        raise UserError(f"files in the layout {args.format} do not name their model; name its folder with -m")

    def convert(codec: Any, content: bytes, name: str) -> tuple[bytes, dict[str, Any]]:
        from PIL import PngImagePlugin

        from cod_jax import images

        image_uint8 = codec.decompress(
            content, layout=args.format, coded_steps=args.coded_steps, **chosen_decoding(args)
        )
        info = PngImagePlugin.PngInfo()
        for key, text in SOFTWARE.items():
            info.add_text(key, text)
        height, width, _ = image_uint8.shape
        data = images.encode(image_uint8, "PNG", pnginfo=info, compress_level=COMPRESS_LEVEL)
        return data, {"width": width, "height": height}

    converter = Converter(
        suffix=SUFFIX,
        find=functools.partial(find_files, suffix=compressed_files.SUFFIX),
        read=compressed_files.read,
        choose=_choose_model,
        convert=convert,
        is_ours=_is_ours,
        beside=BESIDE,
    )
    return convert_files(args, converter)


def _choose_model(content: bytes) -> Path:
    """Return the included model, or the model folder in COD_JAX_MODELS, that a file names.

    Raises:
        UserError: There is none, or it is not a `.cod` file.
    """
    from cod_jax.coding import container
    from cod_jax.model_folder.search import SEARCH_PATH, find_model

    file = container.read(content)
    model = find_model(file.model, file.mode)
    if model is None:
        raise UserError(
            f"the file was made with the model of fingerprint {file.model}, which is not in {SEARCH_PATH}; name its "
            "folder with -m, or a folder that holds it in that variable"
        )
    return model


def _is_ours(path: Path) -> bool:
    """Return whether a picture has the text of those that this command writes."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return SOFTWARE.items() <= image.info.items()
    except (OSError, ValueError, SyntaxError):
        return False


COMMAND = Command("decompress .cod files to PNG pictures", _add_options, _run, EPILOG, device="shared")
