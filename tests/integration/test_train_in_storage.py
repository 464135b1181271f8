"""Runs whose pictures and checkpoints are in remote storage, of which servers run here."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cod_jax.commands.main import main
from tests.storage_fixtures import Server, in_environment, put_folder
from tests.storage_fixtures import gcs_server as gcs_server
from tests.storage_fixtures import s3_server as s3_server
from tests.training_fixtures import REPOSITORY, one_device, small_arguments, write_photographs

each_server = pytest.mark.parametrize("name", ["gcs_server", "s3_server"])
OUTAGE_SECONDS = 60


def _environment(server: Server, tmp_path: Path) -> dict[str, str]:
    cache = {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))}
    return {**one_device(), **cache, **server.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cod_jax.train", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, err = process.communicate(timeout=900)
    finally:
        process.kill()
    return process.returncode, err


@pytest.mark.soak
@each_server
def test_hosts_without_a_shared_folder_keep_their_checkpoints_in_storage(name: str, tmp_path: Path, request):
    server = request.getfixturevalue(name)
    environment, address = _environment(server, tmp_path), f"{server.address}/run"
    write_photographs(tmp_path / "photographs")
    with in_environment(server, tmp_path / "cache"):
        put_folder(tmp_path / "photographs", f"{server.address}/photographs")
    photographs = f"{server.address}/photographs"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = []
    for index in range(2):
        arguments = small_arguments(tmp_path / f"host{index}", photographs, total_steps=2, checkpoint__address=address)
        arguments += [f"--coordinator-address={coordinator}", "--num-processes=2", f"--process-id={index}"]
        hosts.append(_start(arguments, environment))
    for status, err in [_end(host) for host in hosts]:
        assert status == 0, err
    assert not list(tmp_path.glob("host*/checkpoints"))

    # One other host goes on, and what it was given at the first start of all is not needed.
    arguments = small_arguments(tmp_path / "later", photographs, total_steps=3, checkpoint__address=address)
    status, err = _end(_start(arguments, environment))
    assert status == 0, err
    assert "resumed after step 2 of 3" in (tmp_path / "later" / "train.log").read_text()
    with in_environment(server, tmp_path / "cache"):
        model = f"{server.address}/models/small"
        assert main(["export", "--workdir", address, "--step", "3", "--output", model]) == 0


@pytest.mark.soak
@each_server
def test_a_run_survives_a_minute_without_storage(name: str, tmp_path: Path, request):
    server = request.getfixturevalue(name)
    environment = _environment(server, tmp_path)
    write_photographs(tmp_path / "photographs")
    with in_environment(server, tmp_path / "cache"):
        put_folder(tmp_path / "photographs", f"{server.address}/photographs")

    def arguments(run: str) -> list[str]:
        changes = {"total_steps": 60, "checkpoint__every_steps": 5, "validation__num_images": 0}
        address = f"{server.address}/{run}"
        return small_arguments(tmp_path / run, f"{server.address}/photographs", checkpoint__address=address, **changes)

    status, err = _end(_start(arguments("undisturbed"), environment))
    assert status == 0, err

    log = tmp_path / "disturbed" / "train.log"
    process, starts = _start(arguments("disturbed"), environment), 1
    while process.poll() is None and "step 12/60" not in (log.read_text() if log.exists() else ""):
        time.sleep(0.05)
    server.stop()
    time.sleep(OUTAGE_SECONDS)
    server.start()
    status, err = _end(process)
    while status and starts < 3:  # as a scheduler does
        # One line of ours; the libraries of a storage warn about its credentials.
        assert err.count("cod train: error: ") == 1, err
        assert "Traceback" not in err, err
        starts += 1
        status, err = _end(_start(arguments("disturbed"), environment))
    assert status == 0, err
    text = log.read_text()
    for resumed in re.findall(r"resumed after step (\d+)", text):
        before = text.partition(f"resumed after step {resumed}")[0]
        # Steps go on while a checkpoint is written, until the next one is due, which waits for it.
        assert max(map(int, re.findall(r"step (\d+)/60", before))) <= int(resumed) + 2 * 5

    with in_environment(server, tmp_path / "cache"):
        for run in ("undisturbed", "disturbed"):
            assert main(["export", "--workdir", f"{server.address}/{run}", "--output", str(tmp_path / f"m_{run}")]) == 0
    weights = [(tmp_path / f"m_{run}" / "weights.safetensors").read_bytes() for run in ("undisturbed", "disturbed")]
    assert weights[0] == weights[1]
