"""`cod evaluate`: measure a model on a folder of pictures."""

import argparse
import functools
from pathlib import Path

from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import (
    add_decoding_arguments,
    add_limit_argument,
    add_model_argument,
    add_quality_argument,
    add_seed_argument,
    chosen_decoding,
    chosen_limit,
)
from cod_jax.evaluation.folders import checked_pictures
from cod_jax.model_folder import places

EPILOG = """
examples:
  cod evaluate --model models/lite --images photos --output evaluation
  cod evaluate --model models/lite --images photos --output natural --steps 25 --seed 1

Every picture is encoded to bytes and decoded from those bytes. The output folder holds per_image.csv (one row per
picture, and a last one called "mean", which has no size), summary.json, compressed/NAME.cod and decoded/NAME.png. Where
pictures differ in their suffix only, NAME has the suffix too. Pictures (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF; no
animations) are found in the folder and all its subfolders. The mean PSNR leaves out pictures that came back without any
error, whose PSNR is infinite. MS-SSIM of pictures with a side below 161 pixels uses fewer scales (column
ms_ssim_scales) and is not comparable with the usual five; summary.json counts them as num_with_fewer_ms_ssim_scales. If
the command is stopped, the results so far are kept, unless they would replace earlier ones; summary.json then counts
the pictures without a result as num_left. A metric of another package is a class that inherits from
cod_jax.evaluation.metric_table.Metric.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="replace the folder of an earlier evaluation")
    add_quality_argument(parser)
    add_decoding_arguments(parser, default="the model's")
    add_seed_argument(parser)
    add_limit_argument(parser)
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="measure by a metric of another package too; may be repeated",
    )


def _run(args: argparse.Namespace) -> int:
    # What can be found out before JAX is imported, which takes seconds.
    checked_pictures(args.images, args.output, force=args.force)
    places.check_place(Path(args.model), compiled=True)

    from cod_jax.codec import load
    from cod_jax.evaluation.evaluate import evaluate
    from cod_jax.evaluation.metric_table import sentence, with_metrics

    table = with_metrics(args.metric)
    summary, failed = evaluate(
        load(args.model, **chosen_limit(args)),
        args.images,
        args.output,
        quality=args.quality,
        decoding=chosen_decoding(args),
        table=table,
        force=args.force,
        report=functools.partial(frame.report, args.program),
    )
    num_images, num_small = summary["num_images"], summary["num_with_fewer_ms_ssim_scales"]
    small = f" ({num_small} at fewer than five scales)" if num_small else ""
    pictures = "picture" if num_images == 1 else "pictures"
    frame.say(f"{num_images} {pictures}: {sentence(summary, table)}{small}; see {args.output}")
    for name, reason in failed.items():
        frame.print_error(args.program, f"{name}: {reason}")
    return frame.FAILED if failed else frame.DONE


COMMAND = Command("measure a model on a folder of pictures", _add_options, _run, EPILOG, device="shared")
