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
from cod_jax.model_folder.included import FOLDER
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


def distributions(requirements: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return the installed distributions that some requirements name, extras left out, with all that they need."""
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


def make_environment(root: Path, wheel: Path, extra: str = "") -> Path:
    """Make an environment with the wheel and what it needs with an extra, and return its folder of programs.

    The wheel is installed. What it needs is linked from the environment of the tests, which takes no time.
    """
    subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
    programs = root / "bin"
    install = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = re.findall(r"^Requires-Dist: (.*)$", archive.read(name).decode(), re.MULTILINE)
    wanted = [requirement.removesuffix(f"; extra == '{extra}'") for requirement in requirements]
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(root)}))
    for distribution in distributions(wanted).values():
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(str(distribution.locate_file(name))))
    return programs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    return make_environment(tmp_path_factory.mktemp("base"), wheel)


def run(programs: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of an environment in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    program, *rest = map(str, arguments)
    command = [str(programs / program), *rest]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"cod_jax"}
    assert {"cod_jax/share/configs/base.py", "cod_jax/share/configs/sweeps/rate.py"} <= names
    assert not [name for name in names if "demo" in name]
    models = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {f"cod_jax/included/{path.relative_to(FOLDER).as_posix()}" for path in models} <= names


def test_pictures_are_compressed_and_decompressed_by_the_base_install(base: Path, tmp_path: Path):
    save_tiny_model(tmp_path / "model")
    images.save_png(tmp_path / "picture.png", gradient_image(40, 56))
    for arguments in (
        ["--help"],
        ["compress", "-m", "model", "picture.png", "-o", "picture.cod"],
        ["info", "picture.cod"],
        ["decompress", "-m", "model", "picture.cod", "-o", "decoded.png"],
    ):
        done = run(base, tmp_path, "cod", *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert images.to_uint8_rgb(tmp_path / "decoded.png").shape == (40, 56, 3)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--config", "configs/tiny.py", "--workdir", "run"], "train"),
        (["memory", "--config", "configs/tiny.py"], "train"),
        (["sweep", "--sweep", "configs/sweeps/rate.py", "--config", "configs/tiny.py", "--workdir", "runs"], "train"),
        (["prepare", "--source", "photos", "--output", "shards", "--size", "64"], "data"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_command_says_in_one_line_which_extra_it_needs(base: Path, tmp_path: Path, arguments: list[str], extra: str):
    done = run(base, tmp_path, "cod", *arguments)
    program = f"cod {arguments[0]}"
    assert done.stderr == f"{program}: error: {program} needs the extra {extra}: pip install 'cod_jax[{extra}]'\n"
    assert done.returncode == 2
    assert run(base, tmp_path, "cod", arguments[0], "--help").returncode == 0


def test_the_wheel_brings_the_configs_to_train_with(wheel: Path, tmp_path: Path):
    programs = make_environment(tmp_path / "environment", wheel, "train")
    listed = run(programs, tmp_path, "cod", "train", "--help")
    assert "configs/tiny.py: " in listed.stdout
    done = run(programs, tmp_path, "cod", "memory", "--config", "configs/tiny.py:kind=pixel", "--mesh", "1x1x1")
    assert done.returncode == 0, done.stderr
    assert "1x1x1" in done.stdout
    assert "No module named 'skimage'" in run(programs, tmp_path, "python", "-c", "import skimage").stderr
