"""Compiled folders that are damaged, or that somebody changed who wants them to be read."""

import hashlib
import json
from pathlib import Path

import cod_jax
from cod_jax.runtime.folder import DESCRIPTION_FILE, checksum_of
from tests.model_fixtures import gradient_image


def use(path: Path) -> None:
    """Load a folder and run both of its programs."""
    codec = cod_jax.load(path)
    codec.decompress(codec.compress(gradient_image(16, 16)))


def replace_file(path: Path, name: str, data: bytes) -> None:
    """Put another file in its place and tell the description, as somebody would who wants it to be read."""
    (path / name).write_bytes(data)
    description = json.loads((path / DESCRIPTION_FILE).read_text())
    description["files"][name] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_description(path, description)


def write_description(path: Path, values: dict) -> None:
    """Write a description with the checksum that it needs."""
    del values["sha256"]
    (path / DESCRIPTION_FILE).write_text(json.dumps({**values, "sha256": checksum_of(values)}))
