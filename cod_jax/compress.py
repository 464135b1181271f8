"""The command `cod`: compress pictures, decompress them, and describe files and models."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cod_jax import __version__, files
from cod_jax.command_options import (
    add_decoding_arguments,
    add_format_argument,
    add_limit_argument,
    add_quality_argument,
    add_seed_argument,
    chosen_decoding,
    chosen_limit,
)
from cod_jax.compilation_cache import use_compilation_cache
from cod_jax.errors import UserError

if TYPE_CHECKING:
    from cod_jax.coding.stream import Layout

DONE, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130
COMPRESSED_SUFFIX = ".cod"
PICTURE_SUFFIX = ".png"

DESCRIPTION = "Compress pictures to a few hundred bytes with a trained model, and decompress them."
EXIT_STATUS = """
exit status:
  0  everything is done
  1  some or all files failed; the others are done
  2  nothing was tried: wrong usage, or the model cannot be loaded
"""
EXAMPLES = """
examples:
  cod compress -m MODEL photo.jpg               writes photo.cod beside photo.jpg
  cod compress -m MODEL photos/*.jpg -o out/    writes out/NAME.cod for each
  cod decompress -m MODEL photo.cod -o back.png
  cod decompress -m MODEL photo.cod --steps 25  more natural texture, less close to the original
  cod info photo.cod
  cod info MODEL

MODEL is a folder written by python -m cod_jax.export. Decompress with the model that compressed.
The first picture of each size compiles for some seconds; compiled programs are kept in the user's cache folder
(JAX_COMPILATION_CACHE_DIR chooses another).
"""
COMPRESS_EXAMPLES = f"""
examples:
  cod compress -m MODEL photo.jpg               writes photo.cod beside photo.jpg
  cod compress -m MODEL photo.jpg -o small.cod
  cod compress -m MODEL photos/*.jpg -o out/    writes out/NAME.cod for each

Pictures are {files.IMAGE_FORMATS} files; animations are refused. Transparency is composited on white.
"""
DECOMPRESS_EXAMPLES = """
examples:
  cod decompress -m MODEL photo.cod             writes photo.png beside photo.cod
  cod decompress -m MODEL photo.cod -o back.png
  cod decompress -m MODEL out/*.cod -o back/    writes back/NAME.png for each
  cod decompress -m MODEL photo.cod --steps 1   as close to the original as the model can
  cod decompress -m MODEL photo.cod --steps 25 --seed 7

From two steps on a picture starts from noise: another seed gives another texture, the same seed the same picture on any
device (up to rounding). cod info MODEL shows what a model does by default.
"""
INFO_EXAMPLES = """
examples:
  cod info photo.cod                            needs no model
  cod info photo.cod --json                     width, height, mode, model, file_bytes, payload_bytes, ...
  cod info old.cod --format legacy-lite         a file of the published CoD-Lite tool
  cod info MODEL
  cod info MODEL --json                         fingerprint, pitch, codebook_bits, bits_per_pixel, prior, decoding, ...
"""


class _NothingDone(Exception):
    """The command cannot start; the message says why."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(NOTHING_DONE, f"cod: error: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status.
    """
    try:
        return _flushed(_run(argv))
    except BrokenPipeError:
        # A reader such as `head` has seen enough, which is no failure.
        _drop_output()
        return DONE


def _flushed(status: int) -> int:
    """The exit status when all that was printed has been written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _drop_output()
        _print_error(f"the output cannot be written ({error.strerror})")
        return SOME_FAILED
    return status


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _build_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return args.run(args)
    except _NothingDone as error:
        _print_error(str(error))
        return NOTHING_DONE
    except KeyboardInterrupt:
        _print_error("interrupted")
        return INTERRUPTED


def _drop_output() -> None:
    """Send what is still printed nowhere, also what is left in the buffer."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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


def _build_parser() -> _Parser:
    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str, epilog: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog + EXIT_STATUS,
            **layout,
        )
        command.set_defaults(run=run)
        return command

    layout = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(prog="cod", description=DESCRIPTION, epilog=EXAMPLES + EXIT_STATUS, **layout)
    parser.add_argument("--version", action="version", version=f"cod_jax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command, suffix in (
        (add("compress", _compress, "compress pictures to .cod files", COMPRESS_EXAMPLES), COMPRESSED_SUFFIX),
        (add("decompress", _decompress, "decompress .cod files to PNG pictures", DECOMPRESS_EXAMPLES), PICTURE_SUFFIX),
    ):
        command.add_argument("-m", "--model", required=True, metavar="MODEL", help="model folder")
        command.add_argument("inputs", nargs="+", metavar="INPUT", help="files to read")
        command.add_argument(
            "-o",
            "--output",
            metavar="FILE|DIR",
            help=f"file to write (ends in {suffix}) or folder to write into; by default beside each input",
        )
        command.add_argument("--force", action="store_true", help="replace existing outputs")
        add_limit_argument(command)
        add_format_argument(command)
        if suffix == COMPRESSED_SUFFIX:
            add_quality_argument(command)
        else:
            add_decoding_arguments(command, default="the model's")
            add_seed_argument(command)
    info = add("info", _info, "describe a .cod file or a model folder", INFO_EXAMPLES)
    info.add_argument("path", metavar="FILE|MODEL", help="a .cod file or a model folder")
    info.add_argument("--json", action="store_true", help="print JSON")
    add_format_argument(info)
    return parser


def _compress(args: argparse.Namespace) -> int:
    def check(codec: Any) -> None:
        from cod_jax.coding import stream

        stream.checked_quality(args.quality, codec.num_levels)

    def convert(codec: Any, source: Path) -> tuple[bytes, str]:
        from cod_jax import images

        try:
            image_uint8 = images.to_uint8_rgb(source)
        except UserError as error:
            if not _is_compressed(source):
                raise
            raise UserError(f"this is a {COMPRESSED_SUFFIX} file and no picture; decompress it first") from error
        data = codec.compress(image_uint8, quality=args.quality, layout=args.format)
        height, width, _ = image_uint8.shape
        return data, f"{width}x{height}, {_rate(len(data), height, width)}"

    return _convert_files(args, COMPRESSED_SUFFIX, convert, check)


def _decompress(args: argparse.Namespace) -> int:
    def convert(codec: Any, source: Path) -> tuple[bytes, str]:
        from cod_jax import images

        image_uint8 = codec.decompress(_read_compressed(source), layout=args.format, **chosen_decoding(args))
        return images.encode(image_uint8, "PNG"), f"{image_uint8.shape[1]}x{image_uint8.shape[0]}"

    return _convert_files(args, PICTURE_SUFFIX, convert)


def _convert_files(
    args: argparse.Namespace,
    suffix: str,
    convert: Callable[[Any, Path], tuple[bytes, str]],
    check: Callable[[Any], None] = lambda codec: None,
) -> int:
    """Convert file after file; one that fails is named and does not stop the others.

    `convert` gets the codec and the file to read, and returns the bytes to write and what to say about them. `check`
    raises a ValueError if the codec cannot do what is asked of it, whatever the file.
    """
    try:
        plan = plan_outputs(args.inputs, args.output, suffix)
    except UserError as error:
        raise _NothingDone(str(error)) from error

    # A codec is one program among others on its device: it takes memory as needed, not most of it at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    from tqdm import tqdm

    from cod_jax.codec import load

    use_compilation_cache()
    try:
        codec = load(args.model, **chosen_limit(args))
        check(codec)
    except (UserError, OSError) as error:
        raise _NothingDone(files.reason(error)) from error

    num_failed = 0
    for source, target in tqdm(plan, unit="file", leave=False, disable=None):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                _check_paths(source, target, args.force)
                data, summary = convert(codec, source)
                _write(target, data)
            except (UserError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
                num_failed += 1
                reason = files.reason(error)
                line = reason if reason.startswith(f"{source}: ") else f"{source}: {reason}"
                tqdm.write(files.printable(f"cod: error: {line}"), file=sys.stderr)
            else:
                done = files.printable(f"{source} -> {target}: {summary}", sys.stdout.encoding)
                try:
                    tqdm.write(done, file=sys.stdout)
                except BrokenPipeError:
                    _drop_output()  # the files are wanted all the same
        for warning in caught:
            if issubclass(warning.category, UserWarning):
                tqdm.write(files.printable(f"cod: warning: {warning.message}"), file=sys.stderr)
    if num_failed and len(plan) > 1:
        _print_error(f"{num_failed} of {len(plan)} files failed")
    return SOME_FAILED if num_failed else DONE


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


def _read_compressed(path: Path) -> bytes:
    from cod_jax.coding import container

    size = path.stat().st_size
    if size > container.MAX_BYTES:
        raise UserError(
            _explain_picture(path) or f"{size} bytes are too many for a .cod file; this is a file of another kind"
        )
    return path.read_bytes()


def _is_compressed(path: Path) -> bool:
    from cod_jax.coding import container

    with path.open("rb") as file:
        return path.suffix.lower() == COMPRESSED_SUFFIX and file.read(1) == bytes([container.MAGIC])


def _explain_picture(path: Path) -> str:
    from cod_jax.coding import legacy

    with path.open("rb") as file:
        return legacy.explain_picture(file.read(16))


def _info(args: argparse.Namespace) -> int:
    from cod_jax import info

    path = Path(args.path)
    try:
        if path.is_dir():
            facts = info.describe_model(path)
            lines = info.model_lines(path, facts)
        elif not path.exists():
            raise UserError(f"{path} does not exist; give a {COMPRESSED_SUFFIX} file or a model folder")
        else:
            facts = _describe_file(path, args.format)
            lines = info.file_lines(path, facts)
    except (UserError, OSError) as error:
        _print_error(files.reason(error))
        return SOME_FAILED
    if args.json:
        print(json.dumps(facts, indent=2))
        return DONE
    width = max(len(title) for title, _ in lines)
    for title, value in lines:
        print(files.printable(f"{title:{width}}  {value}", sys.stdout.encoding))
    return DONE


def _describe_file(path: Path, layout: "Layout") -> dict[str, Any]:
    from cod_jax import info

    if not path.is_file():
        raise UserError(f"{path} is no regular file; give a {COMPRESSED_SUFFIX} file or a model folder")
    try:
        # Published layouts have no magic number: without this rule any file could be a picture of some size.
        if layout != "cod" and path.suffix.lower() != COMPRESSED_SUFFIX:
            raise UserError(
                _explain_picture(path)
                or f"this is no {COMPRESSED_SUFFIX} file; give a {COMPRESSED_SUFFIX} file or a model folder"
            )
        return info.describe_file(_read_compressed(path), layout=layout)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _rate(num_bytes: int, height: int, width: int) -> str:
    return f"{num_bytes} bytes, {8 * num_bytes / (height * width):.4g} bits per pixel"


def _print_error(message: str) -> None:
    print(files.printable(f"cod: error: {message}"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
