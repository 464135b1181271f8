"""Named, encoded images in a folder, in ArrayRecord shards or in a prepared dataset, by index."""

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cod_jax import files, storage
from cod_jax.errors import UserError
from cod_jax.image_search import find_images, images_among
from cod_jax.input import mixture, reading, records, tfds_source
from cod_jax.input.source import TFDS_PREFIX, Source
from cod_jax.plugins import is_plugin, resolve


class FolderSource(Source):
    """The image files below a folder, sorted by path.

    Attributes:
        location: The folder, for messages.
        names: Paths below the folder. The split into training and validation depends on them alone.
    """

    def __init__(self, folder: str) -> None:
        self.location = folder
        self.names = find_images(folder)
        _check_any(self)

    def identity(self, indices: Sequence[int]) -> dict[str, int]:
        """Return checksums of the sizes and of the times of modification of files; see `Source.identity`."""
        sizes, times = [], []
        for index in indices:
            try:
                about = os.stat(Path(self.location, self.names[index]))
            except OSError:
                sizes.append(-1)  # it counts as unusable when it is read
                times.append(-1)
            else:
                sizes.append(about.st_size)
                times.append(about.st_mtime_ns)
        return {"sizes_crc32": _checksum(sizes), "times_crc32": _checksum(times)}

    def read(self, index: int) -> bytes:
        """Return the content of the file at an index.

        Raises:
            OSError: It cannot be read.
        """
        return files.read_bytes(Path(self.location, self.names[index]))


class StorageSource(Source):
    """The image files below an address of remote storage, sorted by path; each is read when it is needed.

    Args:
        address: The address.
        sizes: The files there, see `storage.list_files`.

    Attributes:
        location: The address.
        names: Paths below it, as `FolderSource` has them.
    """

    def __init__(self, address: str, sizes: Mapping[str, int]) -> None:
        self.location = storage.as_url(address)
        self._sizes = images_among(sizes, self.location)
        self.names = list(self._sizes)
        _check_any(self)

    def identity(self, indices: Sequence[int]) -> dict[str, int]:
        """Return a checksum of the sizes of files; see `Source.identity`."""
        return {"sizes_crc32": _checksum([self._sizes[self.names[index]] for index in indices])}

    def read(self, index: int) -> bytes:
        """Return the content of the file at an index.

        Raises:
            UserError: It is gone.
            StorageError: The storage does not answer for minutes.
        """
        return storage.read_bytes(f"{self.location}/{self.names[index]}")


class RecordSource(Source):
    """ArrayRecord shards, with names from the manifest beside them.

    Args:
        path: Folder of shards, or one of them. At an address of Google Cloud Storage the records are read when they are
            needed; all shards at another address are copied into the user's cache before.

    Attributes:
        location: The folder or shard, for messages.
        names: Name of each image, as `FolderSource` has them.
        has_names: Whether there is a manifest. Without it, names are numbers.
    """

    def __init__(self, path: str) -> None:
        self.location = path
        place = records.place_of(path)
        self.has_names = place.manifest is not None
        self._identity: dict[str, int] = {}
        if place.manifest is not None:
            shards = [shard for shard in records.read_manifest(place.manifest) if place.only in ("", shard.file)]
            if not shards:
                raise UserError(f"{records.MANIFEST_NAME} lists no images of {path}; prepare them again")
            for shard in shards:
                records.check_size(place.folder, shard, place.sizes.get(shard.file))
            self._identity = {"shards_crc32": zlib.crc32("".join(shard.sha256 for shard in shards).encode())}
            names = [name for shard in shards for name in shard.names]
            shard_names = [shard.file for shard in shards]
        else:
            names = []
            shard_names = sorted(place.sizes)
        records.allow_open_files(len(shard_names))
        try:
            self._records: Any = reading.open_records([f"{place.folder}/{name}" for name in shard_names])
        except RuntimeError as error:
            reading.check_answered(error, path)
            raise UserError(f"{path}: a shard is damaged ({error}); prepare the images again") from error
        self.names = names if self.has_names else [f"record {index}" for index in range(len(self._records))]
        if len(self.names) != len(self._records):
            raise UserError(
                f"{path}: expected the {len(self.names)} images of the manifest, got shards with {len(self._records)}; "
                "prepare the images again"
            )
        if not self.names:
            raise UserError(f"{path} holds no images; prepare them again")

    def identity(self, indices: Sequence[int]) -> dict[str, int]:
        """Return a checksum of the shards' checksums in the manifest, if there is one; see `Source.identity`."""
        del indices
        return self._identity

    def read(self, index: int) -> bytes:
        """Return the record at an index.

        Raises:
            UserError: It is damaged.
            StorageError: The storage does not answer for minutes.
        """
        try:
            return self._records[index]
        except RuntimeError as error:
            reading.check_answered(error, self.location)
            raise UserError(f"the record is damaged ({error})") from error


def open_source(path: str) -> Source:
    """Open a folder of images, ArrayRecord shards, "tfds:NAME", a mixture of these, or a class of one's own.

    Args:
        path: The place, which may be an address, or "package.module:Class" with an optional ":ARGUMENT"; see `Source`.

    Raises:
        FileNotFoundError: The path does not exist, or the dataset is not prepared.
        UserError: The path holds no images, they are damaged, or a package is missing.
    """
    kind, argument = _split_kind(path)
    if kind and not Path(path).exists():
        # The settings of a run are its user's own.
        return resolve(kind, Source, trusted=True)(argument)
    if path.startswith(TFDS_PREFIX):
        return tfds_source.TfdsSource(path)
    if path.startswith(mixture.PREFIX):
        return mixture.MixedSource(path, open_source)
    if files.is_address(path):
        found = storage.list_files(path)
        if tfds_source.INFO_NAME in found:
            return tfds_source.TfdsSource(f"{TFDS_PREFIX}{path}")
        has_shards = any(name.endswith(records.SHARD_SUFFIX) and "/" not in name for name in found)
        is_shard = list(found) == [""] and path.endswith(records.SHARD_SUFFIX)
        return RecordSource(path) if has_shards or is_shard else StorageSource(path, found)
    location = Path(path)
    if location.is_file() and location.name.endswith(records.SHARD_SUFFIX):
        return RecordSource(path)
    if (location / tfds_source.INFO_NAME).is_file():
        return tfds_source.TfdsSource(f"{TFDS_PREFIX}{location.absolute()}")
    if location.is_dir() and (
        (location / records.MANIFEST_NAME).is_file() or any(location.glob(f"*{records.SHARD_SUFFIX}"))
    ):
        return RecordSource(path)
    return FolderSource(path)


def _split_kind(path: str) -> tuple[str, str]:
    """Take "package.module:Class:ARGUMENT" apart; of any other text both parts are empty."""
    module, *rest = path.split(":", 2)
    kind = ":".join((module, *rest[:1]))
    is_other = path.startswith((TFDS_PREFIX, mixture.PREFIX)) or not is_plugin(kind)
    return ("", "") if is_other else (kind, rest[1] if len(rest) > 1 else "")


def split_by_name(source: Source, modulus: int) -> tuple[list[int], list[int]]:
    """Split the indices of a source into training and validation by the CRC-32 of the file name without folders.

    The rule looks at one name at a time, so adding or removing images never moves another one to the other side.

    Args:
        source: The images.
        modulus: An image is for validation if its CRC-32 is divisible by this number; 0 puts all into training.

    Returns:
        Training and validation indices, both in ascending order.

    Raises:
        UserError: The images have no names.
    """
    if modulus == 0:
        return list(range(len(source.names))), []
    if not source.has_names:
        raise UserError(
            f"{source.location} has no {records.MANIFEST_NAME}, so nothing can be held out by name; "
            "make the shards with cod prepare, or set data.validation_modulus=0"
        )
    held_out = [name_checksum(name) % modulus == 0 for name in source.names]
    train = [index for index, held in enumerate(held_out) if not held]
    return train, [index for index, held in enumerate(held_out) if held]


def name_checksum(name: str) -> int:
    """Return the CRC-32 of the last part of a name."""
    return zlib.crc32(os.fsencode(name.rpartition("/")[2]))


def _checksum(numbers: Sequence[int]) -> int:
    return zlib.crc32(",".join(map(str, numbers)).encode())


def _check_any(source: Source) -> None:
    if not source.names:
        raise UserError(
            f"{source.location} holds no {files.IMAGE_FORMATS} files and no {records.SHARD_SUFFIX} shards; "
            "give a folder of photographs"
        )
