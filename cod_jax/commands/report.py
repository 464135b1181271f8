"""`cod report`: write the report of an evaluation as one HTML file."""

import argparse
from pathlib import Path

from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.errors import UserError
from cod_jax.evaluation.folders import REPORT_FILE
from cod_jax.evaluation.reading import read_results

EPILOG = """
examples:
  cod report results --images photos
  cod report results --images photos --output report.html --force

cod evaluate writes the same report. It is one file of at most about 28 MB that needs no network: curves, tables, and a
viewer that compares the pictures with a divider. It can be sent or put on a web page as it is. --images names the
pictures that were measured; the decoded ones are in the folder of the evaluation. Of more than 24 pictures the viewer
shows 24, evenly from the worst to the best; the tables have all.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluation", metavar="DIR", help="folder that cod evaluate wrote, or its address")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures that were measured")
    parser.add_argument("--output", metavar="FILE", help="file to write; default: report.html in DIR, replaced")
    parser.add_argument("--force", action="store_true", help="replace the file that --output names")


def _run(args: argparse.Namespace) -> int:
    # What can be found out before JAX is imported, which takes seconds.
    read_results(args.evaluation)
    # The report of the evaluation itself is made again; another file may be somebody's own.
    if args.evaluation in args.given and args.output is None:
        raise UserError(f"expected --output with {args.given[args.evaluation]}, got none; name a local file")
    output = Path(args.output or Path(args.evaluation) / REPORT_FILE)
    replace = args.force or args.output is None
    if output.exists() and not replace:
        raise FileExistsError(f"{output} already exists; choose another output or pass --force to replace it")

    from cod_jax.evaluation.report.page import write_report

    length = write_report(args.evaluation, args.images, output, replace=replace)
    frame.say(f"{output}: {length / 1e6:.1f} MB")
    return frame.DONE


COMMAND = Command(
    "write the report of an evaluation as one HTML file",
    _add_options,
    _run,
    EPILOG,
    device="shared",
    fetched=("evaluation", "images"),
)
