"""Imports go one way, and a few libraries are used in one place only."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "cod_jax"

# A group may import what stands to its right, and itself.
GROUPS: tuple[frozenset[str], ...] = (
    frozenset({"commands"}),
    frozenset({"training", "evaluation", "interop"}),
    frozenset({"codec", "diffc", "specialize"}),
    frozenset({"model_folder"}),
    frozenset({"models", "features", "losses", "input"}),
    frozenset(
        {
            "nn",
            "diffusion",
            "coding",
            "compilation_cache",
            "errors",
            "images",
            "files",
            "parallel",
            "plugins",
            "runtime",
        }
    ),
)
COMMANDS = {
    "benchmark",
    "benchmarks",
    "command_options",
    "compile",
    "compress",
    "demo",
    "evaluate",
    "export",
    "export_checkpoint",
    "fit_prior",
    "import_checkpoint",
    "info",
    "memory",
    "pillow",
    "train",
}
LEVEL = {name: level for level, names in enumerate(GROUPS) for name in names} | dict.fromkeys(COMMANDS, 0)
# Equal neighbours that must not know each other: evaluators are passed into the loop.
FORBIDDEN = {("training", "evaluation"), ("training", "interop"), ("evaluation", "training"), ("evaluation", "interop")}
# Frozen networks are made of layers only.
FORBIDDEN |= {("features", other) for other in ("models", "losses", "input")}
# Functions on arrays: no modules, no configuration.
ARRAYS_ONLY = {"coding", "diffusion"}
# Where a distribution is imported under another name than its own.
IMPORT_NAMES = {
    "absl-py": "absl",
    "ml-collections": "ml_collections",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "protobuf": "google",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "tensorflow-datasets": "tensorflow_datasets",
}

# Files that import what an extra installs.
EXTRAS = {"demo.py": "demo", "evaluation/demo_report.py": "demo", "input/tfds_source.py": "tfds"}


def _source_files() -> list[Path]:
    return sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})  # the package offers the codec, lazily


def _imports(path: Path) -> set[str]:
    """Return the full dotted names a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it out"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _subject(path: Path) -> str:
    """Return the folder or module directly below the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_subjects(path: Path) -> set[str]:
    return {name.split(".")[1] for name in _imports(path) if name.startswith("cod_jax.")} - {"__version__", "load"}


def test_every_part_of_the_package_has_a_place_in_the_order():
    subjects = {_subject(path) for path in _source_files()}
    assert subjects <= set(LEVEL), "name the new part in GROUPS or COMMANDS"


@pytest.mark.parametrize("path", _source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path):
    subject = _subject(path)
    for other in _imported_subjects(path) - {subject}:
        if subject not in COMMANDS:
            assert LEVEL[other] >= LEVEL[subject], f"cod_jax.{subject} must not import cod_jax.{other}"
        assert (subject, other) not in FORBIDDEN, f"cod_jax.{subject} must not import cod_jax.{other}"


@pytest.mark.parametrize("path", _source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_place(path: Path):
    names = _imports(path)
    roots = {name.split(".")[0] for name in names}
    relative = str(path.relative_to(PACKAGE))
    assert "torch" not in roots, "cod_jax reads published files without torch"
    assert "tensorflow" not in roots
    assert "configs" not in roots, "a config file is named on the command line"
    if relative != "training/checkpoint.py":
        assert "orbax" not in roots, "Orbax belongs in training/checkpoint.py"
    if _subject(path) != "parallel":
        assert not re.search(r"\bPartitionSpec\b", path.read_text(encoding="utf-8")), (
            "PartitionSpec belongs in cod_jax.parallel"
        )
    if _subject(path) in ARRAYS_ONLY:
        assert roots.isdisjoint({"flax", "ml_collections", "absl"})
        assert _imported_subjects(path) <= ARRAYS_ONLY | {"errors"}


def test_configs_do_not_import_the_package():
    for path in sorted((REPOSITORY / "configs").rglob("*.py")):
        assert not any(name.split(".")[0] == "cod_jax" for name in _imports(path)), path.name


def test_the_base_install_holds_what_the_package_imports():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def import_names(requirements: list[str]) -> set[str]:
        names = [re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in requirements]
        return {IMPORT_NAMES.get(name, name) for name in names}

    base = import_names(project["dependencies"]) | {"cod_jax"}
    extras = {name: base | import_names(project["optional-dependencies"][name]) for name in ("demo", "tfds")}
    for path in _source_files():
        roots = {name.split(".")[0] for name in _imports(path)} - set(sys.stdlib_module_names)
        allowed = extras.get(EXTRAS.get(str(path.relative_to(PACKAGE)), ""), base)
        assert roots <= allowed, f"{path.relative_to(REPOSITORY)} imports {sorted(roots - allowed)}"
