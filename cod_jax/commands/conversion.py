"""Convert files one by one, as `cod compress` and `cod decompress` do."""

import argparse
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.options import (
    MODEL_TEXT,
    add_format_argument,
    add_limit_argument,
    add_model_argument,
    chosen_limit,
)
from cod_jax.commands.outputs import Conversion, check_paths, plan_outputs
from cod_jax.errors import UserError, stops_one_file
from cod_jax.model_folder import places


@dataclasses.dataclass(frozen=True)
class Converter:
    """The work of a command on each file.

    Attributes:
        suffix: Suffix of the outputs.
        find: Lists the files below a folder, relative to it.
        read: Reads a file, or standard input where that is None.
        choose: Says which model folder an input is converted with.
        convert: Gets the codec, the input and its name for messages, and returns the bytes to write and facts about
            them: JSON values, among them "width" and "height". With `settle` it returns what that takes.
        settle: Gets what `convert` has returned for all files. Returns a sentence about them, and for each what
            `convert` returns otherwise. With it nothing is done if one of the files or outputs cannot be used.
        is_ours: Whether a file at the place of an output is one that the command has written.
        check: Raises a UserError if a codec cannot do what is asked of it with any file.
        beside: What the names of outputs beside their inputs have before the suffix.
    """

    suffix: str
    find: Callable[[Path], Sequence[str]]
    read: Callable[[Path | None], bytes]
    choose: Callable[[bytes], Path]
    convert: Callable[[Any, bytes, str], Any]
    is_ours: Callable[[Path], bool]
    settle: Callable[[list[Any]], tuple[str, list[tuple[bytes, dict[str, Any]]]]] | None = None
    check: Callable[[Any], None] = lambda codec: None
    beside: str = ""


def add_conversion_arguments(parser: argparse.ArgumentParser, suffix: str, *, model_text: str) -> None:
    """Add the options of both commands.

    Args:
        parser: The parser to add them to.
        suffix: Suffix of the outputs.
        model_text: Which model is taken if none is named.
    """
    add_model_argument(parser, required=False, text=f"{MODEL_TEXT}; {model_text}")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files to read; - reads standard input")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE|DIR",
        help=f"file to write (ends in {suffix}), folder to write into, or - for standard output; by default beside "
        "each input",
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="search folders recursively, and keep their structure"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace existing outputs; without -o FILE only those that cod has written"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file")
    add_limit_argument(parser)
    add_format_argument(parser)


def convert_files(args: argparse.Namespace, converter: Converter) -> int:
    """Convert file after file; one that fails is named and does not stop the others.

    Args:
        args: The options.
        converter: What to do with each.

    Returns:
        The exit status.
    """
    find = converter.find if args.recursive else None
    plan = plan_outputs(args.inputs, args.output, converter.suffix, beside=converter.beside, find=find)
    # Mistakes that show before JAX is imported, which takes seconds.
    chosen = None if args.model is None else Path(args.model)
    if chosen is not None:
        places.check_place(chosen, compiled=True)
    usable = [conversion for conversion in plan if _is_usable(args, conversion, converter)]
    num_unusable = len(plan) - len(usable)
    if not usable or (converter.settle is not None and num_unusable):
        return _count(args, num_unusable, len(plan), frame.NOTHING_TRIED)

    load = functools.lru_cache(maxsize=2)(functools.partial(_load, args, converter))
    if chosen is not None:
        load(chosen)
    failed: list[Conversion] = []

    def converted() -> Iterator[tuple[Conversion, Any]]:
        for conversion in _with_bar(usable):
            result = None
            with _one_file(args, conversion, failed):
                content = converter.read(conversion.source)
                model = chosen or converter.choose(content)
                result = converter.convert(load(model), content, conversion.names[0])
            if result is not None:
                yield conversion, result

    results, summary = converted(), ""
    if converter.settle is not None and (found := list(results)):
        summary, settled = converter.settle([result for _, result in found])
        results = zip([conversion for conversion, _ in found], settled, strict=True)
    for conversion, (data, facts) in results:
        with _one_file(args, conversion, failed):
            _write(conversion, data, args.force)
            source, target = conversion.names
            _report(args, conversion, {"input": source, "output": target, **facts})
    if summary and not args.json and usable[0].target is not None:
        frame.say(summary)
    return _count(args, num_unusable + len(failed), len(plan), frame.FAILED)


def _with_bar(usable: Sequence[Conversion]) -> Iterable[Conversion]:
    """Show how far the work is, on a terminal and of several files."""
    if len(usable) == 1 or not sys.stderr.isatty():
        return usable  # importing the bar takes a twentieth of the start
    from tqdm import tqdm

    return tqdm(usable, unit="file", leave=False, file=sys.stderr)


@contextlib.contextmanager
def _one_file(args: argparse.Namespace, conversion: Conversion, failed: list[Conversion]) -> Iterator[None]:
    """Name what stops the work on one file, and note that it failed."""
    try:
        yield
    except Exception as error:
        if not stops_one_file(error):
            raise
        failed.append(conversion)
        _fail(args, conversion, error)


def _load(args: argparse.Namespace, converter: Converter, model: Path) -> Any:
    from cod_jax.codec import kept

    loaded = kept.load_kept(model, **chosen_limit(args))
    converter.check(loaded)
    return loaded


def _is_usable(args: argparse.Namespace, conversion: Conversion, converter: Converter) -> bool:
    try:
        check_paths(conversion, args.force, converter.is_ours)
    except (UserError, OSError) as error:
        _fail(args, conversion, error)
        return False
    return True


def _fail(args: argparse.Namespace, conversion: Conversion, error: Exception) -> None:
    source, _ = conversion.names
    frame.fail(args, error, name=source)
    if args.json:
        frame.say_json({"input": source, "error": files.reason(error)}, elsewhere=conversion.target is None)


def _report(args: argparse.Namespace, conversion: Conversion, facts: dict[str, Any]) -> None:
    # What goes to standard output is not mixed with the picture or the file that goes there.
    elsewhere = conversion.target is None
    if args.json:
        frame.say_json(facts, elsewhere=elsewhere)
        return
    if elsewhere:
        return
    summary = f"{facts['width']}x{facts['height']}"
    if "file_bytes" in facts:
        summary += f", {facts['file_bytes']} bytes, {facts['bits_per_pixel']:.4g} bits per pixel"
    if "quality" in facts:
        summary += f", quality {facts['quality']}"
    frame.say(f"{facts['input']} -> {facts['output']}: {summary}")


def _count(args: argparse.Namespace, num_failed: int, num_files: int, status: int) -> int:
    if num_failed and num_files > 1:
        frame.print_error(args.program, f"{num_failed} of {num_files} files failed")
    return status if num_failed else frame.DONE


def _write(conversion: Conversion, data: bytes, force: bool) -> None:
    target = conversion.target
    if target is None:
        frame.write_data(data)
        return
    try:
        files.write_bytes(target, data, replace=force)
    except OSError as error:
        if not error.strerror:
            raise  # `files` has put it into words
        raise UserError(f"{target} cannot be written ({error.strerror}); choose another output") from error
