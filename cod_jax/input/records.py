"""ArrayRecord shards of encoded images, with a manifest beside them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from cod_jax import files, storage
from cod_jax.errors import UserError

MANIFEST_NAME = "manifest.json"
SHARD_SUFFIX = ".array_record"
# Files and connections of a process beside shards, roughly.
_OTHER_OPEN_FILES = 512
_FORMAT = "cod_jax image records"
_VERSION = 1
# Storage that array_record reads itself.
READ_IN_PLACE = "gs://"


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


@dataclasses.dataclass(frozen=True)
class Place:
    """Shards, wherever they are.

    Attributes:
        folder: Folder of the shards, or its address if records can be read there.
        sizes: Size in bytes of each shard by the name of its file.
        only: The one shard that is meant; "" for all.
        manifest: The local folder of the manifest, None if there is none.
    """

    folder: str
    sizes: dict[str, int]
    only: str
    manifest: Path | None


def place_of(path: str) -> Place:
    """Return where the shards of a folder, or a single shard, can be read.

    Args:
        path: Folder or file, or an address. array_record reads records of gs:// itself; shards at other addresses are
            copied into the user's cache.

    Raises:
        UserError: The address cannot be read.
    """
    is_remote = files.is_address(path)
    path = storage.as_url(path) if is_remote else path
    only = path.rpartition("/")[2] if is_remote else Path(path).name
    only = only if only.endswith(SHARD_SUFFIX) and not Path(path).is_dir() else ""
    if not is_remote:
        folder = Path(path).parent if only else Path(path)
        sizes = {file.name: file.stat().st_size for file in folder.glob(f"*{SHARD_SUFFIX}") if only in ("", file.name)}
        return Place(str(folder), sizes, only, folder if (folder / MANIFEST_NAME).is_file() else None)
    url = path.removesuffix(f"/{only}") if only else path
    found = storage.list_files(url)
    sizes = {
        name: size
        for name, size in found.items()
        if name.endswith(SHARD_SUFFIX) and "/" not in name and only in ("", name)
    }
    manifest = storage.fetch_all(f"{url}/{MANIFEST_NAME}").parent if MANIFEST_NAME in found else None
    if not url.startswith(READ_IN_PLACE):
        url = str(storage.fetch_all(path).parent if only else storage.fetch(url, list(sizes)))
    return Place(url, sizes, only, manifest)


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
    """Write `manifest.json`; see `manifest`.

    Raises:
        OSError: The folder cannot be written.
    """
    files.write_bytes(folder / MANIFEST_NAME, manifest(shards, skipped, settings))


def manifest(shards: list[Shard], skipped: Mapping[str, str], settings: Mapping[str, Any], **more: Any) -> bytes:
    """Return a manifest: counts, skipped files with reasons, settings, and the shards with their checksums.

    Args:
        shards: The shards, in order.
        skipped: Files that were skipped, with reasons.
        settings: How the images were made.
        more: What else is to be told.
    """
    values = {
        "format": _FORMAT,
        "version": _VERSION,
        "num_images": sum(len(shard.names) for shard in shards),
        "num_skipped": len(skipped),
        "settings": dict(settings),
        **more,
        "skipped": dict(skipped),
        "shards": [dataclasses.asdict(shard) for shard in shards],
    }
    return json.dumps(values, indent=1).encode()


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


def check_size(folder: str, shard: Shard, size_bytes: int | None) -> None:
    """Check that a shard is there, with the size that the manifest tells.

    Args:
        folder: Its folder, for messages.
        shard: The shard, as the manifest describes it.
        size_bytes: Its size; None if it is not there.

    Raises:
        FileNotFoundError: It is missing.
        UserError: It has another size.
    """
    path = f"{folder}/{shard.file}"
    if size_bytes is None:
        raise FileNotFoundError(f"{path} is missing, but the manifest lists it; prepare the images again")
    if size_bytes != shard.size_bytes:
        raise UserError(
            f"{path}: expected {shard.size_bytes} bytes, as in the manifest, got {size_bytes}; prepare the images again"
        )


def allow_open_files(num_files: int) -> None:
    """Raise this process's limit of open files as far as it may, if it is too low for shards, which stay open.

    Raises:
        UserError: It may not be raised far enough.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_files + _OTHER_OPEN_FILES
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise UserError(
            f"expected a limit of at least {wanted} open files for {num_files} shards, got {hard}; raise it with "
            "ulimit -n, or make larger shards"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else hard, hard))


def _describe(path: Path, names: list[str]) -> Shard:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path.name, path.stat().st_size, checksum, names)
