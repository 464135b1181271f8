"""Files that start jobs: the recipe for TPU pods, and those for Slurm, Kubernetes, SkyPilot and containers."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator

import kubernetes_validate
import pytest
import yaml

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


def read(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / "launch" / name).read_text())


def checked(arguments: list[str]):
    """The parsed arguments of `cod train`, after its settings were found usable."""
    args = parse(arguments)
    for settings in read_stages(args.config, args.settings).values():
        config = TrainConfig.from_dict(settings)
        assert config.frozen.weights or not config.frozen_names
    return args


def test_a_jobset_starts_all_processes_again_when_one_fails_or_is_told_to_stop(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    jobset = read("jobset.yaml")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    args = checked([text.replace("$(JOB_COMPLETION_INDEX)", "1") for text in container["args"]])
    assert job["parallelism"] == job["completions"] == args.num_processes
    # What JobSet calls the first machine.
    first = f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{jobset['metadata']['name']}"
    assert args.coordinator_address == f"{first}:{container['ports'][0]['containerPort']}"
    # Whoever fails ends all, and they start again together; a status of 0 would be the end of the run.
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert args.status_when_stopped != 0
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert "/shared" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_kubernetes_knows_all_fields_of_the_jobset():
    (replicated,) = read("jobset.yaml")["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}, **replicated["template"]}
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(job, version, strict=True)
    job["spec"] = {**job["spec"], "completionmode": "Indexed"}
    with pytest.raises(kubernetes_validate.ValidationError, match="completionmode"):
        kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_machines_of_skypilot_know_each_other(monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    task = read("skypilot.yaml")
    cod = tmp_path / ".venv" / "bin" / "cod"
    cod.parent.mkdir(parents=True)
    cod.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    cod.chmod(0o755)
    variables = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    output = subprocess.check_output(["bash", "-ec", task["run"]], cwd=tmp_path, env=variables, text=True)
    args = checked(output.splitlines())
    assert (args.coordinator_address, args.num_processes, args.process_id) == ("10.0.0.7:1234", task["num_nodes"], 1)
    assert args.status_when_stopped != 0
    (mounted,) = task["file_mounts"]
    assert args.workdir.startswith(f"{mounted}/")


def test_the_image_gets_extras_that_exist():
    text = (REPOSITORY / "launch" / "Dockerfile").read_text()
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for group in re.findall(r"EXTRAS=([\w,]+)", text) for extra in group.split(",")}
    assert named
    assert named <= set(extras)
    assert 'ENTRYPOINT ["cod"]' in text
