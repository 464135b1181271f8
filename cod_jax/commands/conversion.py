"""Convert files one by one, as `cod compress` and `cod decompress` do."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.options import add_format_argument, add_limit_argument, add_model_argument, chosen_limit
from cod_jax.errors import UserError, stops_one_file


def add_conversion_arguments(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Add the options of both commands.

    Args:
        parser: The parser to add them to.
        suffix: Suffix of the outputs.
    """
    add_model_argument(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files to read")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE|DIR",
        help=f"file to write (ends in {suffix}) or folder to write into; by default beside each input",
    )
    parser.add_argument("--force", action="store_true", help="replace existing outputs")
    add_limit_argument(parser)
    add_format_argument(parser)


def convert_files(
    args: argparse.Namespace,
    suffix: str,
    convert: Callable[[Any, Path], tuple[bytes, str]],
    check: Callable[[Any], None] = lambda codec: None,
) -> int:
    """Convert file after file; one that fails is named and does not stop the others.

    Args:
        args: The options.
        suffix: Suffix of the outputs.
        convert: Gets the codec and the file to read, and returns the bytes to write and what to say about them.
        check: Raises a UserError if the codec cannot do what is asked of it with any file.

    Returns:
        The exit status.
    """
    plan = plan_outputs(args.inputs, args.output, suffix)

    from tqdm import tqdm

    from cod_jax.codec import load

    codec = load(args.model, **chosen_limit(args))
    check(codec)
    num_failed = 0
    for source, target in tqdm(plan, unit="file", leave=False, disable=None, file=sys.stderr):
        try:
            _check_paths(source, target, args.force)
            data, summary = convert(codec, source)
            _write(target, data)
        except Exception as error:
            if not stops_one_file(error):
                raise
            num_failed += 1
            frame.fail(args, error, name=str(source))
        else:
            frame.say(f"{source} -> {target}: {summary}")
    if num_failed and len(plan) > 1:
        frame.print_error(args.program, f"{num_failed} of {len(plan)} files failed")
    return frame.FAILED if num_failed else frame.DONE


def plan_outputs(inputs: Sequence[str], output: str | None, suffix: str) -> list[tuple[Path, Path]]:
    """Pair every input with the file it becomes.

    Args:
        inputs: Files to read.
        output: None for beside each input; a name ending in `suffix` for a file; anything else for a folder.
        suffix: Suffix of the outputs.

    Raises:
        UserError: The output is a file of another kind, one file for several inputs, or the same for two inputs, or
            would replace an input.
    """
    paths = [Path(name) for name in inputs]
    if output is None:
        targets = [path.with_name(path.stem + suffix) for path in paths]
    elif os.path.isdir(output) or output.endswith(("/", os.sep)) or not Path(output).suffix:
        if os.path.exists(output) and not os.path.isdir(output):
            raise UserError(f"-o {output} is a file, not a folder; end the name in {suffix} to write a file")
        targets = [Path(output) / (path.stem + suffix) for path in paths]
    elif Path(output).suffix.lower() != suffix:
        raise UserError(f"-o {output}: end the name in {suffix} to write a file, or in / to write into a folder")
    elif len(paths) > 1:
        raise UserError(f"-o {output} is one file but there are {len(paths)} inputs; give a folder, ending in /")
    else:
        targets = [Path(output)]

    sources = {os.path.realpath(path) for path in paths}
    taken: dict[str, Path] = {}
    for path, target in zip(paths, targets, strict=True):
        place = os.path.realpath(target)
        if place in sources:
            raise UserError(f"{path} would be written to {target}, which is an input; choose another output with -o")
        if place in taken:
            raise UserError(f"{taken[place]} and {path} would both be written to {target}; run them one by one with -o")
        taken[place] = path
    return list(zip(paths, targets, strict=True))


def _check_paths(source: Path, target: Path, force: bool) -> None:
    if source.is_dir():
        raise UserError("is a folder; name the files in it, for example with a *")
    if not source.exists():
        raise UserError("does not exist; check the name")
    if not source.is_file():
        raise UserError("is not a regular file; save its content as a file first")
    if target.exists() and not force:
        raise UserError(f"{target} already exists; pass --force to replace it, or choose another output with -o")


def _write(target: Path, data: bytes) -> None:
    try:
        files.write_bytes(target, data)
    except OSError as error:
        if not error.strerror:
            raise  # `files` has put it into words
        raise UserError(f"{target} cannot be written ({error.strerror}); choose another output") from error
