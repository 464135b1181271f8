"""Search for config files, and their descriptions without running them.

The trainer's help uses this module, so it imports nothing heavy.
"""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).resolve().parent.parent
FOLDER = "configs"
# An installed package contains the config files; a checkout has them beside the package.
ROOTS = (Path(), _PACKAGE / "share", _PACKAGE.parent)


class ConfigFile(NamedTuple):
    """Description of a config file.

    Attributes:
        name: Path of the file, as on the command line.
        title: First line of its docstring.
        options: Values of each option that may follow the colon, the default first.
        has_stages: Whether it has stages, which the stage "all" runs one after the other.
    """

    name: str
    title: str
    options: dict[str, Sequence[str]]
    has_stages: bool

    @property
    def choices(self) -> list[str]:
        """Each option as a line, such as "size=xl, 330m"; the stage comes without its name."""
        lines = []
        for name, values in self.options.items():
            stages = ["all"] if name == "stage" and self.has_stages else []
            prefix = "" if name == "stage" else f"{name}="
            lines.append(f"{prefix}{', '.join([*filter(None, values), *stages])}")
        return lines


def find_config(path: str) -> Path | None:
    """Return the config file at a path, or the file of this name that comes with the package, or None."""
    found = (root / path for root in ROOTS if (root / path).is_file())
    file = next(found, None)
    return file.resolve() if file else None


def config_files() -> list[ConfigFile]:
    """Return the config files in `configs/` of the current folder, or those that come with the package."""
    folder = next((root / FOLDER for root in ROOTS if (root / FOLDER).is_dir()), None)
    files = sorted(folder.glob("*.py")) if folder else []
    return [found for file in files if (found := describe(file, f"{FOLDER}/{file.name}"))]


def describe(file: Path, name: str) -> ConfigFile | None:
    """Return the description of a config file, without running it; None if the file is not one.

    Args:
        file: The file.
        name: What to call it.
    """
    tree = _parsed(file)
    if tree is None or not any(isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in tree.body):
        return None
    title = (ast.get_docstring(tree) or "").partition("\n")[0]
    values = _assigned(tree)
    return ConfigFile(name, title, _options(values.get("OPTIONS"), file.parent), "STAGES" in values)


def _parsed(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _assigned(tree: ast.Module | None) -> dict[str, ast.expr]:
    """Return what a module assigns to names."""
    return {
        target.id: node.value
        for node in (tree.body if tree else ())
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _options(value: ast.expr | None, folder: Path) -> dict[str, Sequence[str]]:
    """Return the options if they are plain values, in the config file or as `module.NAME` of one beside it, else {}."""
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        value = _assigned(_parsed(folder / f"{value.value.id}.py")).get(value.attr)
    try:
        options = ast.literal_eval(value) if value else {}
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}
