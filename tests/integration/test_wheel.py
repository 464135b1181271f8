"""The wheel, installed where there is nothing but it and what the base install brings."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from cod_jax import images
from tests.conftest import REPOSITORY
from tests.model_fixtures import gradient_image, save_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def base_distributions(requirements: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return the installed distributions that some requirements bring, extras left out, with all that they need."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()
        if name in found or "extra ==" in requirement:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or another Python
        waiting += found[name].requires or []
    return found


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The folder of programs of a new environment: the wheel is installed, what it needs is linked from this one."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
    programs = root / "bin"
    install = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)

    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    needed = base_distributions(re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE))
    assert "flax" in needed
    assert not {"clu", "grain", "ml-collections", "tensorboard", "array-record"} & set(needed)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(root)}))
    for distribution in needed.values():
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(str(distribution.locate_file(name))))
    return programs


def run(programs: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `cod` of the new environment in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(programs / "cod"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"cod_jax"}
    assert {"cod_jax/share/configs/base.py", "cod_jax/share/configs/sweeps/rate.py"} <= names
    assert not [name for name in names if "demo" in name and name != "cod_jax/share/configs/demo.py"]


def test_pictures_are_compressed_and_decompressed_by_the_base_install(programs: Path, tmp_path: Path):
    save_tiny_model(tmp_path / "model")
    images.save_png(tmp_path / "picture.png", gradient_image(40, 56))
    for arguments in (
        ["--help"],
        ["compress", "-m", "model", "picture.png", "-o", "picture.cod"],
        ["info", "picture.cod"],
        ["decompress", "-m", "model", "picture.cod", "-o", "decoded.png"],
    ):
        done = run(programs, tmp_path, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert images.to_uint8_rgb(tmp_path / "decoded.png").shape == (40, 56, 3)


def test_what_extras_install_is_missing(programs: Path):
    done = subprocess.run([str(programs / "python"), "-c", "import clu"], capture_output=True, text=True, check=False)
    assert "No module named 'clu'" in done.stderr
