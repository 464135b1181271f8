"""ArrayRecord shards of encoded images, with a manifest beside them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from cod_jax import files
from cod_jax.errors import UserError

MANIFEST_NAME = "manifest.json"
SHARD_SUFFIX = ".array_record"
_FORMAT = "cod_jax image records"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard file, as its manifest describes it.

    Attributes:
        file: Name of the file, beside the manifest.
        size_bytes: Size of the file in bytes.
        sha256: SHA-256 checksum of the file, hexadecimal.
        names: Name of each record: the path of the photograph below the folder it came from.
    """

    file: str
    size_bytes: int
    sha256: str
    names: list[str]


def write_shards(folder: Path, records: Iterable[tuple[str, bytes]], records_per_shard: int) -> list[Shard]:
    """Write named records into shards.

    Args:
        folder: Existing folder for the shard files.
        records: Names and encoded images, in order.
        records_per_shard: Largest number of records in a shard, at least 1.

    Returns:
        The shards, in order.
    """
    shards: list[Shard] = []
    writer = None
    path = folder
    names: list[str] = []
    for name, data in records:
        if writer is None:
            path = folder / f"images-{len(shards):05d}{SHARD_SUFFIX}"
            # Images are compressed already. With groups of one, each record can be read on its own.
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        writer.write(data)
        names.append(name)
        if len(names) == records_per_shard:
            writer.close()
            shards.append(_describe(path, names))
            writer, names = None, []
    if writer is not None:
        writer.close()
        shards.append(_describe(path, names))
    return shards


def write_manifest(folder: Path, shards: list[Shard], skipped: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Write `manifest.json`: counts, skipped files with reasons, settings, and the shards with their checksums.

    Raises:
        OSError: The folder cannot be written.
    """
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "num_images": sum(len(shard.names) for shard in shards),
        "num_skipped": len(skipped),
        "settings": dict(settings),
        "skipped": dict(skipped),
        "shards": [dataclasses.asdict(shard) for shard in shards],
    }
    files.write_bytes(folder / MANIFEST_NAME, json.dumps(manifest, indent=1).encode())


def read_manifest(folder: Path) -> list[Shard]:
    """Return the shards that the manifest of a folder lists.

    Raises:
        FileNotFoundError: There is no manifest.
        UserError: It is damaged, or has another format or version.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_bytes())
        kind = (manifest["format"], manifest["version"])
        shards = [Shard(**shard) for shard in manifest["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); prepare the images again") from error
    if kind != (_FORMAT, _VERSION):
        raise UserError(
            f"{path}: expected {_FORMAT!r} version {_VERSION}, got {kind[0]!r} version {kind[1]}; "
            "prepare the images again"
        )
    return shards


def _describe(path: Path, names: list[str]) -> Shard:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path.name, path.stat().st_size, checksum, names)
