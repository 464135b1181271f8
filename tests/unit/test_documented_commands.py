"""Every command in the documentation and in the files' own descriptions has the options that it is shown with."""

import contextlib
import functools
import io
import re
from typing import Any

from ml_collections import config_dict

from cod_jax.commands.main import COMMANDS, main
from cod_jax.interop.frozen_networks.by_name import OTHERWISE
from configs import compact, latent, lite, one_step, pixel
from tests.conftest import REPOSITORY

FOLDERS = ("docs", "launch", "configs", "data", "cod_jax")
PATHS = (REPOSITORY / "README.md", *(path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*"))))
TEXTS = {str(path.relative_to(REPOSITORY)): path.read_text() for path in PATHS if path.suffix in (".md", ".py", ".sh")}
COMMAND = re.compile(
    rf"(?:python -m ((?:cod_jax|launch|data)\.[a-z]\w*)|\b(cod) (?=(?:{'|'.join(COMMANDS)})\b))"
    r"((?:\\\n|(?!, )[^`\n#])*)"
)
BENCHMARKS = ("codec", "train", "input", "compare", "device")

SETTINGS = [
    lite.get_config("1"),
    lite.get_config("1,bottleneck=factorized"),
    one_step.get_config("1"),
    one_step.get_config("2"),
    pixel.get_config("1"),
    latent.get_config("1"),
    compact.get_config(),
]


def commands() -> list[tuple[str, str, str]]:
    """Where, which module, and what follows its name."""
    found = []
    for where, text in TEXTS.items():
        for module, cod, rest in COMMAND.findall(unwrapped(text)):
            found.append((where, module or cod, rest))
    return found


def unwrapped(text: str) -> str:
    """A text whose inline code has no line ends; blocks of code keep theirs."""
    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    inline = re.compile("`[^`]+`")
    parts[::2] = [inline.sub(lambda code: code.group().replace("\n", " "), part) for part in parts[::2]]
    return "".join(parts)


@functools.cache
def options(*command: str) -> frozenset[str]:
    """The options that a command lists in its help; what its examples name does not count."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main([*command, "--help"]) == 0
    listed = (re.split(r"\s{2,}", line[2:])[0] for line in text.getvalue().split("\n") if line.startswith("  -"))
    return frozenset(name for definition in listed for name in re.findall(r"--[a-z][\w-]*", definition))


def command_of(module: str) -> list[str]:
    """Return the words after `cod` for a module that is run by `python -m`, or for `cod` itself."""
    source = TEXTS.get(f"{module.replace('.', '/')}.py", "")
    return re.findall(r'main\(command="(.*)"\)', source)


def unknown_options(module: str, rest: str) -> list[str]:
    own, _, passed_on = rest.partition(" -- ")
    own = re.sub('"[^"]*"', "", own)  # commands that another one is to run
    command = command_of(module)
    for word in own.split():
        if word not in (BENCHMARKS if command == ["benchmark"] else () if command else COMMANDS):
            break
        command.append(word)
    known = options(*command)
    named = re.findall(r"(?<=\s)--[a-z][\w-]*", " " + own)
    unknown = [name for name in named if name not in known]
    return unknown + (unknown_options("cod_jax.train", passed_on) if passed_on and command != ["prepare"] else [])


def test_the_search_finds_commands_of_all_kinds():
    modules = {module for _, module, _ in commands()}
    assert {"cod", "cod_jax.train", "cod_jax.export", "launch.local", "data.prepare"} <= modules
    assert unknown_options("cod_jax.evaluate", "--model M --data KODAK") == ["--data"]
    assert unknown_options("launch.local", "--processes 2 -- --config c --work D") == ["--work"]
    assert unknown_options("cod", "benchmark train --config c --size 1x1") == ["--size"]
    # Named in an example of the help, and no option of the command itself.
    assert "--config" not in options("export")
    assert any(rest.rstrip().endswith("8x32x1") for _, _, rest in commands())


def test_documented_options_exist():
    wrong = {f"{where}: {module} {rest.strip()}": unknown_options(module, rest) for where, module, rest in commands()}
    assert not {command: names for command, names in wrong.items() if names}


def test_documented_settings_exist():
    for where, text in TEXTS.items():
        for name in re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", text):
            assert any(has(config, name) for config in SETTINGS), f"{where}: {name}"


def test_settings_that_do_without_a_weight_file_exist():
    for text in OTHERWISE.values():
        for name in re.findall(r"(?:objective|model)\.[a-z_.]+", text):
            assert any(has(config, name) for config in SETTINGS), name


def has(config: config_dict.ConfigDict, name: str) -> bool:
    """Whether a configuration has a field, whatever it is below its settings."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, config_dict.ConfigDict) or part not in found:
            return False
        found = found[part]
    return True
