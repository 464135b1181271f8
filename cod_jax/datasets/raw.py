"""What users have placed: the archives of a data set or a folder of pictures, cut into units of work."""

import dataclasses
import hashlib
import itertools
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from tarfile import EOFHeaderError  # pyright: ignore[reportAttributeAccessIssue]

from cod_jax import files, storage
from cod_jax.datasets import places
from cod_jax.errors import UserError
from cod_jax.image_search import find_files, find_images, images_among

# Archives are put together until they have this size: a training run keeps each shard open.
_UNIT_BYTES = 2 << 30
_ARCHIVE_SUFFIXES = (".tar", ".gz")
# Unpacked pictures are in the split that one of the folders above them names, otherwise in that for training.
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a data set is downloaded.

    Attributes:
        archives: Pattern of the names of the archives, by split. Without any, the data set is a folder of pictures.
        num_archives: How many archives a complete split has; other splits may be absent.
        example: Name of an archive, for messages.
    """

    archives: Mapping[str, str] = dataclasses.field(default_factory=dict)
    num_archives: Mapping[str, int] = dataclasses.field(default_factory=dict)
    example: str = ""


@dataclasses.dataclass(frozen=True)
class Unit:
    """A part of the raw data that becomes one shard.

    Attributes:
        split: The split that it is part of.
        number: Its number in the split.
        folder: Folder of the raw data.
        names: Names in the folder, of archives or of pictures.
        sizes: Their sizes in bytes, -1 where a file cannot be looked at.
        are_archives: Whether they are archives.
    """

    split: str
    number: int
    folder: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    are_archives: bool

    @property
    def name(self) -> str:
        """Name of the unit, fit for a file."""
        return f"{self.split}-{self.number:05d}"

    @property
    def key(self) -> str:
        """Checksum of the names and the sizes of the files."""
        text = "\n".join(f"{size_bytes} {name}" for name, size_bytes in zip(self.names, self.sizes, strict=True))
        return hashlib.sha256(os.fsencode(text)).hexdigest()


class DamagedArchiveError(UserError):
    """An archive ends early or cannot be read."""


def find_units(folder: str, layout: Layout, images_per_shard: int, *, partial: bool = False) -> list[Unit]:
    """Cut the raw data into units: some archives, or the pictures of a folder, where there are no archives.

    The same files give the same units, on every machine.

    Args:
        folder: Where the user has placed the data, with all folders below it.
        layout: What is expected there.
        images_per_shard: Pictures of a folder in a unit.
        partial: Accept that archives are missing.

    Raises:
        UserError: There is nothing, archives are missing, or folders put a picture into two splits.
        OSError: The folder cannot be read.
    """
    archives, pictures = _find(folder, layout)
    if any(archives.values()):
        for split, number in layout.num_archives.items():
            if len(archives[split]) != number and not partial:
                raise UserError(
                    f"{folder}: expected {number} archives such as {layout.example} of the split {split}, "
                    f"got {len(archives[split])}; place the others, or accept what is there with --partial"
                )
        return [
            Unit(split, number, folder, tuple(group), tuple(group.values()), are_archives=True)
            for split, sizes in archives.items()
            for number, group in enumerate(_group(sizes))
        ]
    by_split: dict[str, dict[str, int]] = {}
    for name, size_bytes in pictures.items():
        split = _split_of(folder, name) if layout.archives else "train"
        by_split.setdefault(split, {})[name] = size_bytes
    if not pictures:
        expected = f"archives such as {layout.example}, or the pictures in them" if layout.archives else "pictures"
        raise UserError(f"{folder}: expected {expected} ({files.IMAGE_FORMATS}), got none; place them there")
    return [
        Unit(split, number, folder, tuple(group), tuple(group.values()), are_archives=False)
        for split, sizes in by_split.items()
        for rest in [iter(sizes.items())]
        for number in range(-(-len(sizes) // images_per_shard))
        for group in [dict(itertools.islice(rest, images_per_shard))]
    ]


def checksum(units: Sequence[Unit]) -> str:
    """Return a checksum of the names and the sizes of all files, however they are cut into units."""
    digest = hashlib.sha256()
    for name, size_bytes in sorted(pair for unit in units for pair in zip(unit.names, unit.sizes, strict=True)):
        digest.update(os.fsencode(f"{size_bytes} {name}\n"))
    return digest.hexdigest()


def read_pictures(unit: Unit) -> Iterator[tuple[str, bytes | OSError | DamagedArchiveError]]:
    """Yield the pictures of a unit by name, or why one cannot be read, or an archive by name and how it is damaged.

    Pictures in archives are named after the archive, "sa_000000/sa_1.jpg".

    Raises:
        OSError: An archive cannot be read.
        UserError: Remote storage cannot be read.
    """
    for name in unit.names:
        if unit.are_archives:
            try:
                yield from _read_archive(unit.folder, name)
            except DamagedArchiveError as error:
                yield name, error
        else:
            try:
                yield name, places.read(places.join(unit.folder, name))
            except OSError as error:
                yield name, error


def _find(folder: str, layout: Layout) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Return the sizes of the archives of each split, or else those of the pictures, by name in the folder."""
    if files.is_address(folder):
        found = storage.list_files(folder)
    else:
        suffixes = _ARCHIVE_SUFFIXES if layout.archives else ()
        found = _local_sizes(folder, sorted(name for suffix in suffixes for name in find_files(folder, suffix)))
    archives = {
        split: {name: found[name] for name in found if re.fullmatch(pattern, name.rpartition("/")[2])}
        for split, pattern in layout.archives.items()
    }
    if any(archives.values()):
        return archives, {}
    if not files.is_address(folder):
        return archives, _local_sizes(folder, find_images(folder))
    return archives, images_among(found, folder)


def _split_of(folder: str, name: str) -> str:
    """Return the split of an unpacked picture, which lies at any depth below the folder of its split.

    Raises:
        UserError: It lies in folders of two splits; a wrong guess would train on pictures for validation.
    """
    splits = sorted({part for part in name.split("/")[:-1] if part in _SPLITS})
    if len(splits) > 1:
        raise UserError(
            f"{places.join(folder, name)}: expected one split among its folders, got {' and '.join(splits)}; rename or "
            "move one of them"
        )
    return splits[0] if splits else "train"


def _local_sizes(folder: str, names: Sequence[str]) -> dict[str, int]:
    sizes = {}
    for name in names:
        try:
            sizes[name] = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            sizes[name] = -1  # it counts as unreadable when it is read
    return sizes


class _Archive(tarfile.TarFile):
    """An archive that takes note of the mark at its end; `tarfile` ends in silence without one as well.

    Attributes:
        has_ended: Whether the mark was read.
    """

    has_ended = False


class _Member(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            if isinstance(tarfile, _Archive):
                tarfile.has_ended = True
            raise


def _read_archive(folder: str, name: str) -> Iterator[tuple[str, bytes]]:
    stem = name.rpartition("/")[2].partition(".")[0]
    try:
        # As a stream: nothing is extracted, and storage is read once from start to end.
        with (
            places.open_file(places.join(folder, name)) as file,
            _Archive.open(fileobj=file, mode="r|*", tarinfo=_Member) as archive,
        ):
            for member in archive:
                base = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if base.lower().endswith(files.IMAGE_SUFFIXES) else None
                if content is not None and not base.startswith("."):
                    yield f"{stem}/{base}", content.read()
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  (it keeps all that it has seen)
            if not archive.has_ended:
                raise EOFError("it ends early")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DamagedArchiveError(str(error)) from error


def _group(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield archives, in order, until they have the size of a unit."""
    group: dict[str, int] = {}
    for name, size_bytes in sizes.items():
        group[name] = size_bytes
        if sum(group.values()) >= _UNIT_BYTES:
            yield group
            group = {}
    if group:
        yield group
