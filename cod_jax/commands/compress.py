"""`cod compress`: compress pictures to `.cod` files."""

import argparse
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cod_jax import files
from cod_jax.commands import compressed_files, frame
from cod_jax.commands.conversion import Converter, add_conversion_arguments, convert_files
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_mode_arguments, add_rate_arguments, check_mode, chosen_rate
from cod_jax.errors import UserError, WorkError
from cod_jax.image_search import find_images
from cod_jax.model_folder.included import model_path

if TYPE_CHECKING:
    from cod_jax.codec.allocation import Trial

EPILOG = f"""
examples:
  cod compress photo.jpg                        writes photo.cod beside photo.jpg, with the included model
  cod compress photo.jpg --bpp 0.1              at the best quality within 0.1 bits per pixel
  cod compress photo.jpg --max-bytes 5000       at the best quality within 5000 bytes
  cod compress photos -o out --total-bytes 90000   all pictures together within 90000 bytes
  cod compress -m MODEL photo.jpg               with another model
  cod compress -m MODEL photo.jpg -o small.cod
  cod compress -m MODEL photos/*.jpg -o out/    writes out/NAME.cod for each
  cod compress -m MODEL -r photos -o out        writes out/FOLDER/NAME.cod for all pictures below photos
  cod compress -m MODEL - < photo.jpg > photo.cod
  cod compress -m MODEL photo.jpg --mode diffc --bpp 0.02   at any rate, with a model that samples
  cod compress -m MODEL photo.jpg --mode diffc --steps 20

Pictures are {files.IMAGE_FORMATS} files; animations are refused.
Transparency is composited on white. Where names differ in their suffix only, files keep it: a.jpg.cod and a.png.cod.
--json prints a line of JSON for each file, with input, output, width, height, file_bytes and bits_per_pixel, with
--total-bytes also quality; or with input and error.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_conversion_arguments(parser, compressed_files.SUFFIX, model_text="default: the included model compact")
    add_rate_arguments(parser)
    add_mode_arguments(parser)


def _run(args: argparse.Namespace) -> int:
    check_mode(args)
    args.model = str(model_path(args.model))

    def check(codec: Any) -> None:
        from cod_jax.coding import stream

        stream.checked_quality(args.quality, codec.num_levels)

    def convert(codec: Any, content: bytes, name: str) -> tuple[Any, dict[str, Any]]:
        from cod_jax import images

        check_size = functools.partial(codec.check_size, layout=args.format)
        try:
            image_uint8 = images.to_uint8_rgb(content, name, check_size=check_size)
        except UserError as error:
            if not compressed_files.looks_compressed(content, name):
                raise
            raise UserError("expected a picture, got a .cod file; decompress it first") from error
        height, width, _ = image_uint8.shape
        facts = {"width": width, "height": height}
        if args.total_bytes is not None:
            return codec.compress_at_levels(image_uint8, effort=args.effort, layout=args.format), facts
        if args.mode == "diffc":
            from cod_jax.codec import diffc

            data = diffc.compress(codec, image_uint8, bpp=args.bpp, steps=args.steps, quality=args.quality)
        else:
            data = codec.compress(image_uint8, **chosen_rate(args), layout=args.format)
        return data, facts | _rate(data, facts)

    def settle(found: list[Any]) -> tuple[str, list[tuple[bytes, dict[str, Any]]]]:
        from cod_jax.codec import allocation

        try:
            chosen = allocation.within_total([trials for trials, _ in found], args.total_bytes)
        except UserError as error:
            raise WorkError(f"--total-bytes: {error}") from error
        pairs = [(one, facts) for one, (_, facts) in zip(chosen, found, strict=True)]
        written = [(one.data, facts | _rate(one.data, facts) | {"quality": one.quality}) for one, facts in pairs]
        return _summary(chosen, sum(facts["width"] * facts["height"] for _, facts in pairs)), written

    # A set is a folder as a rule.
    args.recursive = args.recursive or args.total_bytes is not None
    converter = Converter(
        suffix=compressed_files.SUFFIX,
        find=find_images,
        read=lambda source: frame.read_data() if source is None else files.read_bytes(source),
        choose=lambda content: Path(args.model),
        convert=convert,
        settle=None if args.total_bytes is None else settle,
        is_ours=lambda target: compressed_files.is_compressed(target, args.format),
        check=check,
    )
    return convert_files(args, converter)


def _rate(data: bytes, facts: Mapping[str, int]) -> dict[str, Any]:
    return {"file_bytes": len(data), "bits_per_pixel": 8 * len(data) / (facts["width"] * facts["height"])}


def _summary(chosen: Sequence["Trial"], num_pixels: int) -> str:
    """Return a sentence about the files of a set."""
    num_bytes = sum(len(one.data) for one in chosen)
    error = sum(one.squared_error for one in chosen) / (3 * num_pixels)
    psnr = 10 * math.log10(255**2 / error) if error else math.inf
    return (
        f"{len(chosen)} file{'s' if len(chosen) > 1 else ''}: {num_bytes} bytes, {8 * num_bytes / num_pixels:.4g} bits "
        f"per pixel, PSNR {psnr:.2f} dB of the pooled error"
    )


COMMAND = Command("compress pictures to .cod files", _add_options, _run, EPILOG, device="shared")
