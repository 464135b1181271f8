"""Compress photographs with the included model, fine-tune it, and write a report: `python -m demo --output DIR`.

Runs the same commands that a user runs (compress, decompress, train, export, evaluate) on photographs that come with
scikit-image; nothing is downloaded. Takes less than five minutes on two CPU cores.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cod_jax.errors import UserError
from demo.steps import demonstrate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 all went well, 1 something failed or is worse than it should be, 2 wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Compress photographs with the included model, fine-tune it on them, and write a report.",
        epilog="Example: python -m demo --output demo_output",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("trainer", nargs="*", metavar="FLAG", help="after --, flags added to those of the trainer")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        problems = demonstrate(args.output, args.trainer)
    except (UserError, OSError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        problems = ["interrupted"]
    for problem in problems:
        print(f"demo: error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
