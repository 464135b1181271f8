"""Search for config files, and their descriptions without running them.

The trainer's help uses this module, so it imports nothing heavy.
"""

import ast
from collections.abc import Iterator, Sequence
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


def find_config(path: str) -> Path | None:
    """Return the config file at a path, or the file of this name that comes with the package, or None."""
    found = (root / path for root in ROOTS if (root / path).is_file())
    file = next(found, None)
    return file.resolve() if file else None


def config_files() -> list[ConfigFile]:
    """Return the config files in `configs/` of the current folder, or those that come with the package."""
    folder = next((root / FOLDER for root in ROOTS if (root / FOLDER).is_dir()), None)
    return list(_read(folder)) if folder else []


def _read(folder: Path) -> Iterator[ConfigFile]:
    """Yield the descriptions of a folder's config files, without running them."""
    for file in sorted(folder.glob("*.py")):
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in tree.body):
            title = (ast.get_docstring(tree) or "").partition("\n")[0]
            values = {
                target.id: node.value
                for node in tree.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            yield ConfigFile(f"{FOLDER}/{file.name}", title, _plain(values.get("OPTIONS")), "STAGES" in values)


def _plain(value: ast.expr | None) -> dict[str, Sequence[str]]:
    """Return the options if a config file writes them out as plain values, otherwise none."""
    try:
        options = ast.literal_eval(value) if value else {}
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}
