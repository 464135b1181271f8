"""Parts of other packages are found by name, and only where the user trusts them."""

import subprocess
import sys
from pathlib import Path

import pytest

from cod_jax.errors import UserError
from cod_jax.plugins import PLUGINS, is_plugin, listed_packages, resolve


class Base:
    """Base class of parts."""


class Part(Base):
    """A part of an imported module."""

    def __init__(self):
        raise AssertionError("nothing is called")


class Stranger:
    """A class that is no part."""


value = 3


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return the name of a package that is installed and not imported; its module says when it is imported."""
    name = "plugin_of_a_test"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    blocks = f"from {__name__} import Base\nclass Mine(Base): pass\n"
    (tmp_path / name / "blocks.py").write_text(blocks)
    (tmp_path / name / "broken.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(PLUGINS, raising=False)
    yield name
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def test_a_class_of_an_imported_module_is_found():
    assert resolve(f"{__name__}:Part", Base, trusted=False) is Part


def test_a_module_that_the_user_named_is_imported(package: str):
    assert resolve(f"{package}.blocks:Mine", Base, trusted=True).__name__ == "Mine"


@pytest.mark.parametrize("listed", ["{}", "other,{}", "other , {} ,", "other:{}"])
def test_a_listed_package_is_imported(package: str, listed: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.pathsep", ":")
    monkeypatch.setenv(PLUGINS, listed.format(package))
    assert package in listed_packages()
    assert resolve(f"{package}.blocks:Mine", Base, trusted=False).__name__ == "Mine"


def test_an_untrusted_module_is_not_imported(package: str):
    expected = f"install {package}, import {package}.blocks first or list {package} in COD_JAX_PLUGINS if you trust it"
    with pytest.raises(UserError, match=expected):
        resolve(f"{package}.blocks:Mine", Base, trusted=False)
    assert package not in sys.modules


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("{}.nothing:Mine", "there is no module plugin_of_a_test.nothing; install"),
        ("no_such_package.blocks:Mine", "there is no module no_such_package; install no_such_package"),
        ("{}.blocks:Other", "plugin_of_a_test.blocks has no class Other"),
        ("{}.blocks:__name__", "got a value of type str"),
        (f"{__name__}:Stranger", "to be a subclass of .*test_plugins.Base, got the class Stranger"),
        (f"{__name__}:value", "got a value of type int"),
        (f"{__name__}:pytest", "got a value of type module"),
    ],
)
def test_what_is_not_there_or_no_part_is_named(package: str, kind: str, message: str):
    with pytest.raises(UserError, match=message):
        resolve(kind.format(package), Base, trusted=True)


@pytest.mark.parametrize("kind", ["", "codebook", "module:", ":Class", "a..b:C", "a.b:C.d", "a b:C", "./a:C", "a:C\n"])
def test_other_forms_are_refused(kind: str):
    assert not is_plugin(kind)
    with pytest.raises(UserError, match="expected a name like"):
        resolve(kind, Base, trusted=True)


def test_an_error_of_the_plugin_itself_is_not_hidden(package: str):
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        resolve(f"{package}.broken:Mine", Base, trusted=True)


def test_the_module_imports_nothing_heavy():
    script = "import sys, cod_jax.plugins; print([n for n in ('jax', 'numpy', 'flax') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
