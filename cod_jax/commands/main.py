# PYTHON_ARGCOMPLETE_OK
"""The command `cod`: finds the module of a command, reads the options and runs it."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cod_jax import __version__, files, storage
from cod_jax.commands import frame
from cod_jax.commands.frame import Command, Parser
from cod_jax.errors import UserError
from cod_jax.huge_pages import restart_with_huge_pages
from cod_jax.model_folder.included import model_path

# In the order of the help.
COMMANDS = {
    "compress": "compress",
    "decompress": "decompress",
    "info": "info",
    "models": "models",
    "prepare": "prepare",
    "settings": "settings",
    "train": "train",
    "sweep": "sweep",
    "launch": "launch",
    "memory": "memory",
    "benchmark": "benchmark",
    "checkpoints": "checkpoints",
    "export": "export",
    "fit-prior": "fit_prior",
    "evaluate": "evaluate",
    "report": "report",
    "compile": "compile",
    "import": "import_",
    "export-published": "export_published",
}
DESCRIPTION = "Compress pictures with a neural network, decompress them, and train such networks on your own pictures."
EPILOG = """
examples:
  cod compress photo.jpg                        writes photo.cod beside photo.jpg, with the included model
  cod decompress photo.cod -o back.png          with the model that the file names
  cod compress -m MODEL photo.jpg               with another model
  cod info photo.cod
  cod train --config configs/tiny.py --workdir runs/tiny --config.data.source=photos
  cod export --workdir runs/tiny --output models/tiny

MODEL is the name of an included model, or a folder that cod export or cod import has written. cod COMMAND --help
describes a command. The first picture of each size takes some seconds more, because its program is compiled; compiled
programs are kept in the user's cache folder (JAX_COMPILATION_CACHE_DIR chooses another). Completion in the shell:
eval "$(register-python-argcomplete cod)".
"""
SETTING = ("--config.", "--noconfig.")


def main(argv: Sequence[str] | None = None, *, command: str | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.
        command: The command to run, whose name is then not among the arguments.

    Returns:
        The exit status; see `frame`.
    """
    arguments = [*([command] if command else []), *(sys.argv[1:] if argv is None else argv)]
    program = " ".join(["cod", *arguments[:1]]) if arguments[:1] and arguments[0] in COMMANDS else "cod"
    with frame.standard_streams(program) as checked:
        try:
            args = parse(arguments)
        except UserError as error:
            frame.print_error(program, str(error))
            return checked(frame.NOTHING_TRIED)
        except SystemExit as stop:  # after --help or --version
            return checked(int(stop.code or 0))
        if argv is None and args.command.device == "whole":
            restart_with_huge_pages()
        return checked(frame.run(args.command, args, fetch=_fetch))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of a command.

    Args:
        arguments: The name of the command, and its arguments.

    Returns:
        The options. Besides, `command` is the command; `program` its name for messages; `settings` the arguments that
        set the trainer's fields, and `trainer` those behind `--`, where the command takes them.

    Raises:
        UserError: The arguments cannot be used.
        SystemExit: After --help or --version.
    """
    # Only the command that is asked for has to be imported.
    names = arguments[:1] if arguments[:1] and arguments[0] in COMMANDS else COMMANDS
    commands = {name: load(name) for name in names}
    parser, parsers = _build_parsers(commands)
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for what could come next
        import argcomplete

        argcomplete.autocomplete(parser)
    passes_on = any(command.trainer_arguments == "after --" for command in commands.values())
    cut = arguments.index("--") if passes_on and "--" in arguments else len(arguments)
    args, rest = parser.parse_known_args(arguments[:cut])
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and name not in ("model", *args.command.addresses, *args.command.fetched):
                files.require_local(text)
    args.trainer = list(arguments[cut + 1 :])
    if args.command.trainer_arguments == "settings":
        args.settings, rest = _split_settings(rest)
    if rest:
        hint = f"; arguments of {args.command.behind} go after --" if passes_on else ""
        parsers[args.program].error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return args


def _fetch(args: argparse.Namespace) -> None:
    """Copy what is read at addresses of remote storage, and put the paths of the copies in their place.

    `args.given` tells the address of each copy.

    Raises:
        UserError: There is nothing at an address.
        OSError: A copy cannot be written.
    """
    copies = {"model": model_path, **dict.fromkeys(args.command.fetched, storage.fetch_all)}

    args.given = {}

    def path(place: Any, copy: Callable[[str], Path]) -> Any:
        if not isinstance(place, str) or not files.is_address(place):
            return place
        local = str(copy(place))
        args.given[local] = place
        return local

    for name, copy in copies.items():
        given = getattr(args, name, None)
        if given is not None:
            setattr(args, name, [path(one, copy) for one in given] if isinstance(given, list) else path(given, copy))


def load(name: str) -> Command:
    """Import a command by its name."""
    return importlib.import_module(f"cod_jax.commands.{COMMANDS[name]}").COMMAND


def _build_parsers(commands: Mapping[str, Command]) -> tuple[Parser, dict[str, Parser]]:
    """Build the parser of all commands, and those of single ones by program."""
    parser = Parser(prog="cod", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"cod_jax {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    parsers = {}
    for name, command in commands.items():
        description = f"{command.summary[0].upper()}{command.summary[1:]}."
        epilog: Any = command.epilog  # a function too, which our parser takes
        one = subparsers.add_parser(name, help=command.summary, description=description, epilog=epilog)
        command.add_options(one)
        if command.trainer_arguments == "after --":
            one.usage = f"{one.format_usage().removeprefix('usage: ').rstrip()} -- arguments of {command.behind}"
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        one.set_defaults(command=command, program=one.prog)
        parsers[one.prog] = one
    return parser, parsers


def _split_settings(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split what is not an option into the trainer's settings, `--config.FIELD=VALUE` or two words, and the rest."""
    settings: list[str] = []
    others: list[str] = []
    for index, argument in enumerate(rest):
        after_name = index > 0 and rest[index - 1].startswith(SETTING) and "=" not in rest[index - 1]
        is_value = after_name and not argument.startswith("--")
        (settings if argument.startswith(SETTING) or is_value else others).append(argument)
    return settings, others
