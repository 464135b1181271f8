"""Commands in the recipe for TPU pods and in the Slurm script."""

import re
import shlex
from collections.abc import Iterator

import pytest

from cod_jax.commands.main import parse
from cod_jax.training.config import TrainConfig
from cod_jax.training.config_files import read_stages
from tests.conftest import REPOSITORY

FILES = ("tpu_pod.md", "slurm.sh")


def text_of(name: str) -> str:
    """A file with its continued lines joined, without the signs of comments."""
    text = re.sub(r"^#( |$)", "", (REPOSITORY / "launch" / name).read_text(), flags=re.MULTILINE)
    return re.sub(r"\\\n\s*", "", text)


def training(name: str) -> Iterator[TrainConfig]:
    """The settings of every stage of every training in a file that names a config."""
    for line in re.findall(r"(?:cod_jax\.train|sbatch launch/slurm\.sh) (.*--config configs/.*)", text_of(name)):
        words = shlex.split(re.split(r" > |\"$", line)[0])
        args = parse(["train", *words])
        for settings in read_stages(args.config, args.settings).values():
            yield TrainConfig.from_dict(settings)


@pytest.mark.parametrize("name", FILES)
def test_the_trainings_have_their_weight_files(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    configs = list(training(name))
    assert configs
    for config in configs:
        assert config.data.source
        assert config.frozen.weights or not config.frozen_names


@pytest.mark.parametrize("name", FILES)
def test_the_shards_are_large_enough_for_every_stage(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    sizes = [int(size) for size in re.findall(r"cod prepare .*--size (\d+)", text_of(name))]
    assert sizes
    assert min(sizes) >= max(config.data.image_size for config in training(name))


def test_a_pod_trains_in_the_background_with_a_python_that_serves():
    text = text_of("tpu_pod.md")
    (train,) = re.findall(r"on_all \"(.*cod_jax\.train[^\"]*)\"", text)
    assert "nohup" in train
    assert train.endswith("2>&1 < /dev/null & echo \\$! > ~/train.pid")
    # Only the first process writes compiled programs.
    assert "JAX_COMPILATION_CACHE_DIR=/shared/" in train
    (python,) = re.findall(r"uv venv --python 3\.(\d+)", text)
    (needed,) = re.findall(r'requires-python = ">=3\.(\d+)"', (REPOSITORY / "pyproject.toml").read_text())
    assert int(python) >= int(needed)


def test_slurm_jobs_keep_compiled_programs_where_all_commands_do():
    for path in (REPOSITORY / "launch" / "slurm.sh", REPOSITORY / "cod_jax" / "launch" / "slurm_array.py"):
        assert not re.search(r"^export JAX_COMPILATION_CACHE_DIR", path.read_text(), re.MULTILINE)
