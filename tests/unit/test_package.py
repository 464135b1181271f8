"""The package as a newcomer meets it: a light import and a version."""

import json
import re
import subprocess
import sys

import cod_jax

HEAVY = ["clu", "flax", "grain", "jax", "ml_collections", "numpy", "orbax", "PIL", "tensorboard"]


def test_importing_the_package_imports_nothing_heavy():
    script = f"import json, sys, cod_jax; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_version_is_a_plain_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", cod_jax.__version__)


def test_everything_on_offer_is_listed():
    assert {"__version__", "load"} <= set(dir(cod_jax))


def test_a_model_is_named_by_a_path():
    # In a process without the checks of types that the tests run with.
    command = [sys.executable, "-c", "import cod_jax; cod_jax.load(3)"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    expected = "cod_jax.errors.UserError: expected the path of a model folder, got 3"
    assert result.stderr.splitlines()[-1] == expected


def test_unknown_attribute_is_named():
    assert not hasattr(cod_jax, "no_such_name")
