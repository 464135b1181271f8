"""Imports go one way, libraries stay in their place, and files stay short."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cod_jax.commands.frame import EXTRAS as EXTRA_OF_IMPORT

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "cod_jax"
# Beside the package; none of them is installed with it.
FOLDERS = ("configs", "data", "demo", "examples", "launch")
MAX_LINES = 400

# A group may import what stands below it, and itself. A name is a folder or a module directly in the package.
GROUPS: tuple[frozenset[str], ...] = (
    frozenset({"commands", "benchmarks", "launch", "pillow"}),
    frozenset({"training", "evaluation", "interop"}),
    frozenset({"codec", "perceptual", "specialize"}),
    frozenset({"model_folder"}),
    frozenset({"datasets", "models", "features", "losses", "input"}),
    frozenset(
        {
            "compilation_cache",
            "coding",
            "diffusion",
            "files",
            "image_search",
            "images",
            "locks",
            "nn",
            "parallel",
            "plugins",
            "runtime",
            "storage",
        }
    ),
    frozenset({"cores", "errors", "huge_pages"}),
)
# Modules that are run as `python -m cod_jax.NAME`.
MODULE_FORMS = frozenset(
    {
        "__main__",
        "benchmark",
        "compile",
        "compress",
        "evaluate",
        "export",
        "export_checkpoint",
        "fit_prior",
        "import_checkpoint",
        "memory",
        "train",
    }
)
LEVEL = {name: level for level, names in enumerate(GROUPS) for name in names} | dict.fromkeys(MODULE_FORMS, 0)
# Neighbours that must not know each other. Evaluators are passed into the loop.
ROOMS = ("training", "evaluation", "interop")
FORBIDDEN = {(one, other) for one in ROOMS for other in ROOMS if one != other}
FORBIDDEN |= {("launch", "commands")}
# Frozen networks are made of layers only.
FORBIDDEN |= {("features", other) for other in ("models", "losses", "input")}
# Compiled folders are read without Flax.
FORBIDDEN |= {("runtime", other) for other in ("nn", "diffusion", "parallel", "plugins")}
# Functions on arrays: no modules, no configuration.
ARRAYS_ONLY = frozenset({"coding", "diffusion"})
# Flax is a library of those that hold layers or make them.
WITHOUT_FLAX = ARRAYS_ONLY | {"cores", "errors", "files", "images", "losses", "parallel", "plugins", "runtime"}
WITHOUT_FLAX |= {"datasets", "input"}

# Where a distribution is imported under another name than its own.
IMPORT_NAMES = {
    "absl-py": "absl",
    "apache-beam": "apache_beam",
    "ml-collections": "ml_collections",
    "mozjpeg-lossless-optimization": "mozjpeg_lossless_optimization",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "protobuf": "google",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "tensorflow-datasets": "tensorflow_datasets",
}
# Which extra installs what the files of a folder import beside the base install; the longest match counts.
EXTRAS = {
    "cod_jax/commands": "train",
    "cod_jax/evaluation": "eval",
    "cod_jax/images/tiff.py": "tiff",
    "cod_jax/datasets": "beam",
    "cod_jax/datasets/places.py": "storage",
    "cod_jax/input": "train",
    "cod_jax/input/tfds_source.py": "tfds",
    "cod_jax/perceptual.py": "train",
    "cod_jax/storage": "storage",
    "cod_jax/training": "train",
    "configs": "train",
    "demo": "demo",
    "examples": "train",
}
# What can be imported with the base install (""), and with an extra.
WORKS_WITH = {
    "": ("codec", "runtime", "pillow", "interop", "specialize.folder", "evaluation.evaluate", "model_folder.fitting"),
    "data": ("input.prepare",),
    "train": ("training.loop", "launch.plan"),
}
# Packages that come with the base install, because Flax needs them, although only extras name them.
BROUGHT_BY_FLAX = {"absl", "google", "optax", "orbax"}

# Files that are still too long. The list is to become empty: a file that was made shorter must be struck off.
LONG_FILES: frozenset[str] = frozenset()


def _source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def _relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


# These offer to users what stands above or beside them, and so stand outside the order; nothing in the package takes it
# from them.
OFFERING = {
    PACKAGE / "__init__.py",
    PACKAGE / "runtime" / "__init__.py",
    PACKAGE / "evaluation" / "from_weights.py",
}
PACKAGE_FILES = [path for path in _source_files("cod_jax") if path not in OFFERING]
each_file = pytest.mark.parametrize("path", PACKAGE_FILES, ids=_relative)


def _imports(path: Path) -> set[str]:
    """Return the full dotted names that a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it out"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def _subject(path: Path) -> str:
    """Return the folder or module directly below the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_subjects(path: Path) -> set[str]:
    return {name.split(".")[1] for name in _imports(path) if name.startswith("cod_jax.")} - {"__version__", "load"}


def test_every_part_of_the_package_has_a_place_in_the_order():
    assert {_subject(path) for path in PACKAGE_FILES} <= set(LEVEL), "name the new part in GROUPS or MODULE_FORMS"


@each_file
def test_imports_go_one_way(path: Path):
    subject = _subject(path)
    for other in _imported_subjects(path) - {subject}:
        assert LEVEL[other] >= LEVEL[subject], f"cod_jax.{subject} must not import cod_jax.{other}"
        assert (subject, other) not in FORBIDDEN, f"cod_jax.{subject} must not import cod_jax.{other}"


def test_no_parts_import_each_other_in_a_circle():
    imported: dict[str, set[str]] = {_subject(path): set() for path in PACKAGE_FILES}
    for path in PACKAGE_FILES:
        imported[_subject(path)] |= _imported_subjects(path) & set(LEVEL) - {_subject(path)}
    circles = {frozenset(circle) for start in imported if len(circle := _circle(start, imported)) > 1}
    assert not circles


@pytest.mark.parametrize(
    ("imported", "circle"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}, {"b", "c"}),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, {"a", "b", "c"}),
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, {"b"}),
    ],
)
def test_circles_are_found(imported: dict[str, set[str]], circle: set[str]):
    assert _circle("b", imported) == circle


def _circle(start: str, imported: Mapping[str, set[str]]) -> set[str]:
    """Return a part, and the parts that it imports and that import it, directly or through others."""

    def reached(name: str) -> set[str]:
        found, waiting = {name}, [name]
        while waiting:
            new = imported[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    return {name for name in reached(start) if start in reached(name)}


@pytest.mark.parametrize("name", sorted(MODULE_FORMS))
def test_a_module_form_runs_a_command_and_nothing_else(name: str):
    assert _imports(PACKAGE / f"{name}.py") == {"sys", "cod_jax.commands.main.main"}
    assert not [path for path in PACKAGE_FILES if f"cod_jax.{name}" in _imports(path)], f"import from cod_jax.{name}"


@each_file
def test_libraries_stay_in_their_place(path: Path):
    roots = _roots(path)
    assert "torch" not in roots, "cod_jax reads published files without torch"
    assert "tensorflow" not in roots
    assert roots.isdisjoint({*FOLDERS, "tests"}), "the package runs without its checkout"
    if _relative(path) not in ("cod_jax/training/checkpoint.py", "cod_jax/training/orbax_s3.py"):
        assert "orbax" not in roots, "Orbax belongs in training/checkpoint.py"
    if _subject(path) != "parallel":
        assert not re.search(r"\bPartitionSpec\b", path.read_text(encoding="utf-8")), (
            "PartitionSpec belongs in cod_jax.parallel"
        )
    if _subject(path) in ARRAYS_ONLY:
        assert _imported_subjects(path) <= ARRAYS_ONLY | {"cores", "errors", "plugins"}
    if _subject(path) in WITHOUT_FLAX:
        assert "flax" not in roots


def test_clocks_that_people_set_measure_nothing():
    # They say when something was, never how long it took: a clock that jumps must not end a run or a wait.
    when = {"cod_jax/evaluation/evaluate.py", "cod_jax/training/goodput.py", "cod_jax/training/writers.py"}
    found = {
        _relative(path)
        for path in PACKAGE_FILES
        if re.search(r"\btime\.time\(|\bdatetime\.now\(", path.read_text(encoding="utf-8"))
    }
    assert found == when


def test_configs_do_not_import_the_package():
    for path in _source_files("configs"):
        assert "cod_jax" not in _roots(path), path.name


def _requirements() -> dict[str, set[str]]:
    """Return the import names of what the base install ("") and each extra bring, the base install's in all."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted: dict[str, list[str]] = {"": project["dependencies"], **project["optional-dependencies"]}

    def names(extra: str) -> Iterator[str]:
        for requirement in wanted[extra]:
            if others := re.fullmatch(r"cod_jax\[(.+)\]", requirement):
                for other in others[1].split(","):
                    yield from names(other)
            else:
                name = re.split(r"[^A-Za-z0-9_-]", requirement)[0]
                yield IMPORT_NAMES.get(name, name)

    return {extra: {*names(""), *names(extra)} for extra in wanted}


def _extra(path: Path) -> str:
    relative = _relative(path)
    return next((EXTRAS[name] for name in sorted(EXTRAS, reverse=True) if f"{relative}/".startswith(f"{name}/")), "")


def test_what_a_folder_imports_is_installed_by_its_extra():
    installed = _requirements()
    known = {"cod_jax", *FOLDERS, *sys.stdlib_module_names}
    for path in _source_files("cod_jax", *FOLDERS):
        missing = _roots(path) - known - installed[_extra(path)]
        assert not missing, f"{_relative(path)} imports {sorted(missing)}, which [{_extra(path)}] does not install"


def test_the_test_extra_installs_all_others():
    installed = _requirements()
    for extra in ("train", "eval", "data", "tfds", "beam", "demo"):
        assert installed[extra] <= installed["test"]


@pytest.mark.parametrize("extra", WORKS_WITH)
def test_an_extra_installs_what_its_modules_import(extra: str):
    installed = _requirements()
    hidden = sorted(set().union(*installed.values()) - installed[extra] - BROUGHT_BY_FLAX)
    assert {"tensorflow_datasets", "skimage"} <= set(hidden)
    # Commands must start to be able to say which extra they lack.
    commands = [f"commands.{path.stem}" for path in _source_files("cod_jax/commands") if path.stem != "__init__"]
    script = f"""
import importlib, importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
for name in {[*WORKS_WITH[extra], *commands]!r}:
    importlib.import_module(f"cod_jax.{{name}}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_commands_name_the_extra_that_installs_what_is_missing():
    installed = _requirements()
    optional = installed["train"] | installed["data"] | installed["beam"] | installed["demo"]
    assert set(EXTRA_OF_IMPORT) >= optional - installed[""] - {"google"}
    for name, extra in EXTRA_OF_IMPORT.items():
        assert name in installed[extra], name


def test_files_are_short():
    paths = _source_files("cod_jax", *FOLDERS, "tests")
    lengths = {_relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    too_long = {name for name, length in lengths.items() if length > MAX_LINES}
    assert not too_long - LONG_FILES, f"longer than {MAX_LINES} lines; make two things of it"
    assert not LONG_FILES - too_long, "no longer too long; strike it off LONG_FILES"
