"""Options that several commands have."""

import argparse
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

from cod_jax import files
from cod_jax.codec.rates import check_bits_per_pixel, checked_effort
from cod_jax.coding.container import DEFAULT_LAYOUT, Layout
from cod_jax.coding.sizes import checked_limit
from cod_jax.errors import UserError
from cod_jax.model_folder.decoding import MAX_STEPS, Sampler, checked_guidance, checked_seed, checked_steps
from cod_jax.model_folder.included import model_path

MODEL_TEXT = "model folder, or name of an included model"
# Help of --force where a model folder is written.
REPLACE_MODEL = "replace an existing model folder: files coded with other weights need the old one"


def add_decoding_arguments(parser: argparse.ArgumentParser, *, default: str, several: bool = False) -> None:
    """Add the options that choose among the pictures a file stands for; `chosen_decoding` reads them.

    Args:
        parser: What to add them to.
        default: Whose settings are meant where an option is left out.
        several: Whether --steps and --guidance take several numbers, and so are lists.
    """
    more = "; several are measured one after the other" if several else ""

    def add(name: str, parse: Callable[[str], Any], metavar: str, text: str) -> None:
        if several:
            add_list(parser, name, parse, metavar=metavar, help=text, default=[None])
        else:
            parser.add_argument(name, type=parse, metavar=metavar, help=text)

    add(
        "--steps",
        _checked(int, checked_steps),
        "N",
        f"steps of the sampler, 1 to {MAX_STEPS}: 1 comes closest to the original, more give texture if the model "
        f"learned to sample{more}; default: {default}",
    )
    add(
        "--guidance",
        _checked(float, checked_guidance),
        "G",
        "how strongly the picture follows the file (classifier-free guidance); 1 switches it off and takes half "
        f"the time; no effect with one step{more}; default: {default}",
    )
    parser.add_argument(
        "--sampler", choices=get_args(Sampler), help=f"solver; no effect with one step; default: {default}"
    )


def add_seed_argument(parser: argparse.ArgumentParser) -> None:
    """Add --seed, which `chosen_decoding` reads too."""
    parser.add_argument(
        "--seed",
        type=_checked(int, checked_seed),
        metavar="S",
        help="seed of the noise from which two or more steps start, 0 to 2^63 - 1; no effect with one step; default: 0",
    )


def add_limit_argument(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels, which `chosen_limit` reads."""
    parser.add_argument(
        "--max-pixels",
        type=_checked(int, checked_limit),
        metavar="N",
        help="refuse larger pictures; a pixel takes up to 3 kilobytes of memory; default: 16777216 (4096x4096)",
    )


def chosen_limit(args: argparse.Namespace) -> dict[str, Any]:
    """Return the chosen --max-pixels, as `cod_jax.load` takes it."""
    return {} if args.max_pixels is None else {"max_pixels": args.max_pixels}


def chosen_decoding(args: argparse.Namespace) -> dict[str, Any]:
    """Return the chosen steps, guidance, sampler and seed, as `Codec.decompress` takes it."""
    chosen = {name: getattr(args, name, None) for name in ("steps", "guidance", "sampler", "seed")}
    return {name: value for name, value in chosen.items() if value is not None}


def add_rate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --quality, --bpp, --max-bytes and --total-bytes, of which one can be given."""
    rates = parser.add_mutually_exclusive_group()
    add_quality_argument(rates)
    rates.add_argument(
        "--bpp",
        type=bits_per_pixel,
        metavar="X",
        help="best quality whose file has at most X bits per pixel",
    )
    rates.add_argument("--max-bytes", type=positive, metavar="N", help="best quality whose file has at most N bytes")
    rates.add_argument(
        "--total-bytes",
        type=positive,
        metavar="N",
        help="choose a quality for each picture, so that all files together have at most N bytes and the squared error "
        "over all pixels is small; encodes and decodes every picture at every quality; takes folders as -r does",
    )
    parser.add_argument(
        "--effort",
        type=_checked(int, checked_effort),
        default=0,
        metavar="N",
        help="gradient steps that improve each file, 0 (the default) to 10000; each takes about as long as three "
        "decodings, and 100 are enough",
    )


def add_mode_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --mode and the --steps of mode diffc; `check_mode` looks at them."""
    parser.add_argument(
        "--mode",
        choices=("symbols", "diffc"),
        default="symbols",
        help="symbols: the model's symbols alone, for the model's decoder. diffc: symbols of the lowest quality, or "
        "that of --quality, and then steps of the reverse diffusion, at any rate; for models that were trained to "
        "sample. It takes --bpp or --steps, and about half a second a step for 512x512 pixels with the included model "
        "on a CPU; default: symbols",
    )
    parser.add_argument(
        "--steps",
        type=_checked(int, checked_steps),
        metavar="K",
        help=f"in mode diffc, code K steps, 1 to {MAX_STEPS}, of about 0.0005 bits per pixel each",
    )


def check_mode(args: argparse.Namespace) -> None:
    """Refuse options that do not go with the mode.

    Raises:
        UserError: With the option to leave out or to add.
    """
    if args.mode == "symbols":
        if args.steps is not None:
            raise UserError("--steps is for --mode diffc; add that, or leave it out")
        return
    if (args.bpp is None) == (args.steps is None):
        raise UserError("--mode diffc takes one of --bpp and --steps; give one of them")
    unused = {"--max-bytes": args.max_bytes, "--total-bytes": args.total_bytes, "--effort": args.effort or None}
    for name, value in unused.items():
        if value is not None:
            raise UserError(f"{name} does not go with --mode diffc; leave it out, or give --bpp")
    if args.format != DEFAULT_LAYOUT:
        raise UserError(f"--mode diffc writes the layout {DEFAULT_LAYOUT} only; leave --format out")


def chosen_rate(args: argparse.Namespace) -> dict[str, Any]:
    """Return the chosen quality or limit, and the effort, as `Codec.compress` takes them for one picture."""
    return {"quality": args.quality, "bpp": args.bpp, "max_bytes": args.max_bytes, "effort": args.effort}


def add_quality_argument(parser: Any) -> None:
    """Add --quality, as `Codec.compress` takes it, to a parser or a group."""
    parser.add_argument(
        "--quality",
        type=_checked(int, _check_quality),
        metavar="Q",
        help="quality level, for a model that has several: 1 makes the smallest files; default: the best, which "
        "cod info MODEL shows",
    )


def add_qualities_argument(parser: argparse.ArgumentParser) -> None:
    """Add --quality for several levels, as a list."""
    text = "levels of models that have several: 1 makes the smallest files; default: all"
    add_list(parser, "--quality", _checked(int, _check_quality), metavar="Q", help=text)


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Add --format, the layout of `.cod` files, as `Codec.compress` takes it."""
    parser.add_argument(
        "--format",
        choices=get_args(Layout),
        default=DEFAULT_LAYOUT,
        help="layout of .cod files: cod names the model and has a checksum; legacy-lite and legacy-cod are "
        "those of the published CoD-Lite and CoD tools and have neither; default: cod",
    )


def named_model(text: str) -> str:
    """Return the path of the model folder that is meant, or its address, for options that take a model."""
    try:
        if not text:
            raise UserError("the name of the model is empty; give a model folder, or a name that cod models lists")
        return text if files.is_address(text) else str(model_path(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local_model(text: str) -> str:
    """Return the path of a model folder that is to be changed, so that the address of remote storage is refused."""
    try:
        files.require_local(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return named_model(text)


def add_model_argument(
    parser: argparse.ArgumentParser,
    *,
    text: str = MODEL_TEXT,
    required: bool = True,
    parse: Callable[[str], str] = named_model,
) -> None:
    """Add -m, --model; the name of an included model becomes the path of its folder."""
    parser.add_argument("-m", "--model", required=required, type=parse, metavar="MODEL", help=text)


def add_list(
    parser: argparse.ArgumentParser,
    name: str,
    parse: Callable[[str], Any],
    *,
    metavar: str,
    help: str,
    default: Iterable[Any] = (),
) -> None:
    """Add an option of several values, with spaces, commas or both between them, of which none counts twice.

    Args:
        parser: What to add it to.
        name: The option, such as "--steps".
        parse: Parser of one value; its errors are those of argparse.
        metavar: What one value is called.
        help: What the values mean.
        default: The values where the option is left out.
    """

    def parse_word(text: str) -> list[Any]:
        return [parse(part.strip()) for part in text.split(",") if part.strip()]

    parser.add_argument(
        name, nargs="+", type=parse_word, action=_Joined, default=list(default), metavar=metavar, help=help
    )


class _Joined(argparse.Action):
    """Action that stores the values of all words in one list."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Store the values of an option."""
        joined = list(dict.fromkeys(itertools.chain.from_iterable(values)))
        if not joined:
            raise argparse.ArgumentError(self, "expected at least one value, got none")
        setattr(namespace, self.dest, joined)


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Return a parser of a value of `add_list` that must be one of some names."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected {', '.join(names)}, got {text!r}")
        return text

    return parse


def positive(text: str) -> int:
    """Return a positive whole number, for options that take one."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def whole_number(text: str) -> int:
    """Return a whole number from 0, for options that take one."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def bits_per_pixel(text: str) -> float:
    """Return a positive number, for options that take a rate."""
    return _checked(float, check_bits_per_pixel)(text)


def _checked(convert: Callable[[str], Any], check: Callable[[Any], object]) -> Callable[[str], Any]:
    """Return a parser of an option's text whose errors are those of `check`."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError as error:
            kind = "whole number" if convert is int else "number"
            raise argparse.ArgumentTypeError(f"expected a {kind}, got {text!r}") from error
        try:
            check(value)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return value

    return parse


def _check_quality(quality: int) -> None:
    if quality < 1:
        raise UserError(f"quality must be at least 1, got {quality}")
