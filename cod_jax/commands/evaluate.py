"""`cod evaluate`: measure models and other codecs on a folder of pictures."""

import argparse
import functools
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from cod_jax import files, storage
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import (
    MODEL_TEXT,
    add_decoding_arguments,
    add_limit_argument,
    add_list,
    add_qualities_argument,
    add_seed_argument,
    bits_per_pixel,
    chosen_decoding,
    named_model,
    positive,
)
from cod_jax.errors import UserError
from cod_jax.evaluation.folders import PLAN_FILE, REPORT_FILE, checked_pictures
from cod_jax.evaluation.reading import read_results
from cod_jax.model_folder import places

EPILOG = """
examples:
  cod evaluate -m compact --images photos --output results
  cod evaluate -m compact --images photos --output results --quality 4
  cod evaluate -m compact --images photos --output rates --set-bpp 0.075,0.15,0.3
  cod evaluate -m compact --images photos --output compared --baselines jpeg,webp,avif,jxl
  cod evaluate -m models/lite -m models/pixel --images photos --output natural --steps 1,4,25 --seed 1
  cod evaluate -m models/flow --images photos --output dial --steps 1,2,4,8,25 --guidance 1,2
  cod evaluate --files other_codec --images photos --output other
  cod evaluate -m models/new --images photos --output new --against old/results.json --max-loss psnr=0.05

Every picture is encoded to a file, and another process decodes that file. The output folder holds results.json with
everything, report.html, per_image.csv (a row per curve, rate and picture), summary.csv (a row per curve and rate),
files/ and decoded/. Where a model decodes the same files with several --steps or --guidance, dial.csv and plots/ show
what each makes of distortion and perception. If the command is stopped, the same command resumes it. Pictures (JPEG,
PNG, WebP, TIFF, BMP, GIF, AVIF; no animations) are found in the folder and all its subfolders. A folder of another
codec's results has a subfolder for each rate; in it, the decoded picture of photo.jpg is photo.png, and its coded file
is photo with any other suffix.
Values of a list have commas or spaces between them.
A metric of another package is a class that inherits from cod_jax.evaluation.metric_table.Metric. docs/evaluation.md
says how each number is computed.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        "--model",
        action="append",
        default=[],
        type=named_model,
        metavar="MODEL",
        help=f"{MODEL_TEXT}; may be repeated",
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of pictures, or its address")
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write or to resume, or an address such as gs://bucket/results",
    )
    parser.add_argument("--force", action="store_true", help="delete the evaluation in the output folder first")
    add_qualities_argument(parser)
    add_list(
        parser,
        "--set-bpp",
        bits_per_pixel,
        metavar="X",
        help="also measure each model at these bits per pixel over all pictures together, with the level of each "
        "picture chosen so that the squared error over all pixels is small",
    )
    add_decoding_arguments(parser, default="the model's", several=True)
    add_seed_argument(parser)
    add_limit_argument(parser)
    add_list(
        parser,
        "--baselines",
        str,
        metavar="NAME",
        help="other codecs to measure on the same pictures: jpeg, mozjpeg, webp, avif, jxl, or all",
    )
    parser.add_argument(
        "--files",
        action="append",
        default=[],
        metavar="DIR",
        help="results of another codec, a subfolder per rate; may be repeated",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="measure by a metric of another package too; may be repeated",
    )
    parser.add_argument(
        "--weights",
        metavar="DIR",
        help="folder of the published weight files of LPIPS-Alex, DISTS and FID, which are then measured",
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="results.json of an earlier evaluation: tell what got better or worse, in the mean and for each picture",
    )
    add_list(
        parser,
        "--max-loss",
        _loss,
        metavar="NAME=X",
        help="with --against: exit with status 1 if a mean got worse by more than X, such as psnr=0.05,bpp=0.001",
    )
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="processes for other codecs and for metrics; default: one per core",
    )


def _run(args: argparse.Namespace) -> int:
    files.check_outside(args.output, args.given.get(args.images, args.images))
    with storage.working_copy(args.output, PLAN_FILE) as folder:
        return _evaluate(args, folder)


def _evaluate(args: argparse.Namespace, folder: Path) -> int:
    """Do what the command does; its results are written into a local folder."""
    # What can be found out before JAX is imported, which takes seconds.
    checked_pictures(args.images, folder, force=args.force)
    for model in args.model:
        places.check_place(Path(model), compiled=True)
    if args.weights and not Path(args.weights).is_dir():
        raise UserError(f"--weights {args.weights} is not a folder; name the one that holds the weight files")

    from cod_jax.evaluation.baselines import FORMATS
    from cod_jax.evaluation.compare import check_losses
    from cod_jax.evaluation.evaluate import evaluate
    from cod_jax.evaluation.plan import GUIDANCE_OF, Request
    from cod_jax.evaluation.report.page import write_report
    from cod_jax.evaluation.results import describe_metrics, few_scales_note

    earlier = read_results(args.against) if args.against else None
    decoding = chosen_decoding(args)
    networks, patch_fid, not_measured = _networks(args.weights)
    request = Request(
        models=args.model,
        qualities=args.quality,
        set_rates=sorted(args.set_bpp),
        steps=decoding.pop("steps"),
        guidances=decoding.pop("guidance"),
        decoding=decoding,
        baselines=list(FORMATS) if "all" in args.baselines else args.baselines,
        results=args.files,
        metrics=args.metric,
        networks=networks,
        patch_fid=patch_fid,
        not_measured=not_measured,
        max_pixels=args.max_pixels,
    )
    if not (args.model or args.baselines or args.files):
        raise UserError("expected --model, --baselines or --files, got none of them; say what to measure")
    if args.max_loss and earlier is None:
        raise UserError("expected --against with --max-loss, got none; name the results.json to compare with")
    if earlier is not None:
        of_pictures = {metric.name for metric in request.table()}
        described = [metric for metric in describe_metrics(request.table()) if metric["name"] in of_pictures]
        check_losses(dict(args.max_loss), described, earlier)
    results = evaluate(
        args.images,
        folder,
        request,
        force=args.force,
        processes=args.processes,
        command=shlex.join(["cod", *sys.argv[1:]]),
        against=earlier,
        report=functools.partial(frame.report, args.program),
    )
    for line in _lines(results, request.described()):
        frame.say(line)
    for missing in results["not_measured"]:
        # Without --weights nobody asked for the metrics that need them.
        if (
            args.weights
            or missing["name"] in args.baselines
            or ("all" in args.baselines and missing["name"] in FORMATS)
            or missing["name"].startswith(GUIDANCE_OF)
        ):
            frame.say(f"not measured: {missing['title']}: {missing['reason']}")
    if few := few_scales_note(results):
        frame.say(f"note on MS-SSIM: {few}")
    if not args.no_report:
        write_report(folder, args.images, folder / REPORT_FILE)
    output = args.output.rstrip("/")
    frame.say(f"see {output if args.no_report else f'{output}/{REPORT_FILE}'}")
    return max(_tell_failures(results, args), _tell_changes(results, earlier, args, folder) if earlier else frame.DONE)


def _networks(weights: str | None) -> tuple[list[Any], Any, dict[str, tuple[str, str]]]:
    """Return the metrics of pictures whose weight files are there, patch-FID, and title and reason of the others."""
    from cod_jax.evaluation.networks import NO_WEIGHTS, Dists, LpipsAlex
    from cod_jax.evaluation.patch_fid import PatchFid
    from cod_jax.interop.frozen_networks.dists import DISTS_FILES, load_dists
    from cod_jax.interop.frozen_networks.files import official_sha256
    from cod_jax.interop.frozen_networks.inception import INCEPTION_FILE, load_inception
    from cod_jax.interop.frozen_networks.lpips import LPIPS_FILES, load_lpips

    measured: dict[Any, Any] = {}
    not_measured = {}
    for metric, official, load in (
        (LpipsAlex, LPIPS_FILES["alex"], load_lpips),
        (Dists, DISTS_FILES, load_dists),
        (PatchFid, [INCEPTION_FILE], load_inception),
    ):
        try:
            if weights is None:
                raise FileNotFoundError(NO_WEIGHTS)
            digests = official_sha256(official, weights)
        except FileNotFoundError as error:
            not_measured[metric.name] = (metric.title, str(error))
        else:
            measured[metric] = metric(load, str(Path(weights).resolve()), " ".join(digests))
    patch_fid = measured.pop(PatchFid, None)
    return list(measured.values()), patch_fid, not_measured


def _loss(text: str) -> tuple[str, float]:
    """Return a metric and its allowed loss."""
    name, _, value = text.partition("=")
    try:
        allowed = float(value)
    except ValueError:
        allowed = math.nan
    if not allowed >= 0:
        raise argparse.ArgumentTypeError(f"expected METRIC=NUMBER from 0, such as psnr=0.05, got {text!r}")
    return name.strip(), allowed


def _tell_changes(results: dict[str, Any], earlier: dict[str, Any], args: argparse.Namespace, folder: Path) -> int:
    """Print and write what changed, and return the exit status."""
    from cod_jax.evaluation.compare import compare, losses, only_earlier, summary
    from cod_jax.evaluation.results import write_changes

    changes, rows, differing = compare(results, earlier)
    write_changes(folder, changes, rows)
    for line in summary(changes):
        frame.say(line)
    for name in differing:
        frame.say(f"{name} is computed in another way than in {args.against}, and was not compared")
    if missing := only_earlier(results, earlier):
        frame.say(f"not compared, because only the earlier evaluation has them: {', '.join(missing)}")
    too_much = losses(changes, dict(args.max_loss))
    for sentence in too_much:
        frame.print_error(args.program, sentence)
    return frame.FAILED if too_much else frame.DONE


def _lines(results: dict[str, Any], table: Any) -> list[str]:
    """Return a line per curve and rate."""
    from cod_jax.evaluation.metric_table import sentence

    lines = []
    for curve in results["curves"]:
        for point in curve["points"]:
            mean = point["mean"]
            if mean["num_images"]:
                rate = f"{mean['bpp']:.4f} bits per pixel, " if "bpp" in mean else ""
                lines.append(f"{curve['title']} {point['label']}: {rate}{sentence(mean, table)}")
    return lines


def _tell_failures(results: dict[str, Any], args: argparse.Namespace) -> int:
    """Print what failed, each reason once, and return the exit status."""
    failed = dict(results["failed"])
    for curve in results["curves"]:
        for point in curve["points"]:
            for name, reason in point.get("failed", {}).items():
                failed.setdefault(name, reason)
    for name, reason in failed.items():
        frame.print_error(args.program, f"{name}: {reason}")
    return frame.FAILED if failed else frame.DONE


COMMAND = Command(
    "measure models and other codecs on pictures",
    _add_options,
    _run,
    EPILOG,
    device="shared",
    addresses=("output",),
    fetched=("images", "files", "weights", "against"),
)
