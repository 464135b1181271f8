"""The platform, with and without JAX."""

import os
import subprocess
import sys

import jax
import pytest

from cod_jax.errors import UserError
from cod_jax.runtime.platforms import current_platform


def test_unknown_devices_are_named(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "abacus")
    with pytest.raises(UserError, match="JAX computes on abacus here, for which there are no programs"):
        current_platform()


@pytest.mark.parametrize(
    ("settings", "imports_jax"),
    [({"JAX_PLATFORMS": "cpu"}, False), ({"JAX_PLATFORMS": "cpu", "JAX_PLATFORM_NAME": "cpu"}, True)],
    ids=["the processor", "in doubt"],
)
def test_jax_is_imported_only_where_the_platform_is_in_doubt(settings: dict[str, str], imports_jax: bool):
    code = "import sys; from cod_jax.runtime.platforms import *; print(current_platform(), 'jax' in sys.modules)"
    environment = {**os.environ, **settings}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", str(imports_jax)]
