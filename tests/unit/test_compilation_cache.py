"""Where compiled programs are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cod_jax import compilation_cache


def test_the_compilation_cache_is_the_users_unless_set(tmp_path: Path):
    script = (
        "import jax; from cod_jax.compilation_cache import use_compilation_cache; use_compilation_cache()\n"
        "print(jax.config.values['jax_compilation_cache_dir'])\n"
        "print(jax.config.values['jax_persistent_cache_min_compile_time_secs'])"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["JAX_COMPILATION_CACHE_DIR"], environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]

    def chosen(**changes: str) -> str:
        command = [sys.executable, "-c", script]
        result = subprocess.run(command, env={**environment, **changes}, check=True, capture_output=True, text=True)
        folder, seconds = result.stdout.split()
        assert seconds == changes.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        return folder

    own = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    assert chosen(**own) == str(tmp_path / "own")
    if sys.platform == "linux":
        assert chosen() == str(tmp_path / "cache" / "cod_jax" / "jax")
        assert not (tmp_path / "cache").exists()  # JAX makes it when it has something to keep
        (tmp_path / "file").touch()
        assert chosen(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"


@pytest.mark.parametrize("folder", [None, Path("~/.cache/cod_jax")])
def test_users_without_a_home_have_no_cache(monkeypatch, folder: Path | None):
    def user_cache_path(*_, **__) -> Path:
        if folder is None:
            raise RuntimeError("could not determine the home directory")
        return folder

    monkeypatch.setattr("platformdirs.user_cache_path", user_cache_path)
    assert list(compilation_cache.settings()) == ["jax_persistent_cache_min_compile_time_secs"]
