"""`cod report`: write the report of an evaluation as one HTML file."""

import argparse
from pathlib import Path

from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.evaluation.report.results import read_results

EPILOG = """
examples:
  cod report results --images photos
  cod report results --images photos --output report.html --force

The report is one file of at most about 28 MB that needs no network: curves, tables, and a viewer that compares the
pictures with a divider. It can be sent or put on a web page as it is. --images names the pictures that were measured;
the decoded ones are in the folder of the evaluation. Of more than 24 pictures the viewer shows 24, evenly from the
worst to the best; the tables have all.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluation", metavar="DIR", help="folder that cod evaluate wrote")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures that were measured")
    parser.add_argument("--output", metavar="FILE", help="file to write; default: report.html in the evaluation")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def _run(args: argparse.Namespace) -> int:
    # What can be found out before JAX is imported, which takes seconds.
    read_results(Path(args.evaluation))
    output = Path(args.output or Path(args.evaluation) / "report.html")
    if output.exists() and not args.force:
        raise FileExistsError(f"{output} already exists; choose another output or pass --force to replace it")

    from cod_jax.evaluation.report.page import write_report

    length = write_report(args.evaluation, args.images, output, replace=args.force)
    frame.say(f"{output}: {length / 1e6:.1f} MB")
    return frame.DONE


COMMAND = Command("write the report of an evaluation as one HTML file", _add_options, _run, EPILOG, device="shared")
