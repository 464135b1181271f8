"""Find config files, and say what they are without running them.

The help of the trainer is made here, so nothing heavy is imported.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).resolve().parent.parent
FOLDER = "configs"
# An installed package brings the config files along, a checkout has them beside the package.
ROOTS = (Path(), _PACKAGE / "share", _PACKAGE.parent)


class ConfigFile(NamedTuple):
    """What a config file says about itself.

    Attributes:
        name: Its path, as on the command line.
        title: First line of its docstring.
        options: What may follow the colon after it: values by the option's name, the default first.
        has_stages: Whether the stage "all" runs its stages one after the other.
    """

    name: str
    title: str
    options: dict[str, Sequence[str]]
    has_stages: bool


def find_config(path: str) -> Path | None:
    """Return the config file of a name: a path, or one in `configs/` that comes with the package; None without one."""
    found = (root / path for root in ROOTS if (root / path).is_file())
    file = next(found, None)
    return file.resolve() if file else None


def config_files() -> list[ConfigFile]:
    """Return the config files in `configs/` of the current folder, else those that come with the package."""
    folder = next((root / FOLDER for root in ROOTS if (root / FOLDER).is_dir()), None)
    return list(_read(folder)) if folder else []


def _read(folder: Path) -> Iterator[ConfigFile]:
    """Yield what the config files of a folder say, without running them."""
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
    """Return the options that a config file writes out; none where it computes them."""
    try:
        options = ast.literal_eval(value) if value else {}
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}
