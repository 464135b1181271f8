"""The platform, with and without JAX."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cod_jax.errors import UserError
from cod_jax.runtime.platforms import current_platform
from tests.training_fixtures import REPOSITORY


def test_unknown_devices_are_named(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "abacus")
    with pytest.raises(UserError, match=r"expected JAX to compute on cpu, .* or tpu, got abacus; set JAX_PLATFORMS"):
        current_platform()


@pytest.mark.parametrize(
    ("settings", "imports_jax"),
    [
        ({"JAX_PLATFORMS": "cpu"}, False),
        ({"JAX_PLATFORMS": "cpu", "JAX_PLATFORM_NAME": "cpu"}, True),
        ({}, False),
        ({"PYTHONPATH": "package"}, True),
        ({"PYTHONPATH": "entry_point"}, True),
        ({"TPU_LIBRARY_PATH": "none.so"}, True),
    ],
    ids=str,
)
def test_jax_is_imported_only_where_the_platform_is_in_doubt(
    settings: dict[str, str], imports_jax: bool, tmp_path: Path
):
    (tmp_path / "package" / "jax_plugins").mkdir(parents=True)
    (tmp_path / "entry_point" / "other-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "entry_point" / "other-1.0.dist-info" / "entry_points.txt").write_text("[jax_plugins]\n")
    code = "import sys; from cod_jax.runtime.platforms import *; print(current_platform(), 'jax' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_PLATFORM")}
    environment["PYTHONPATH"] = os.pathsep.join(
        [*([str(tmp_path / settings["PYTHONPATH"])] if "PYTHONPATH" in settings else []), str(REPOSITORY)]
    )
    environment |= {name: value for name, value in settings.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", str(imports_jax)]
