"""Builders of tensorflow-datasets for raw data that users have placed.

Unlike other builders they do not shuffle: each unit of the raw data becomes one shard. So nothing has to be sorted, and
a preparation that was stopped resumes.
"""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder

from cod_jax.datasets import places, raw
from cod_jax.datasets.convert import Done, Settings, features, read_done
from cod_jax.errors import UserError, WorkError
from cod_jax.input import records

DEFAULT_QUALITY = 95
_NUM_NAMED = 3


@dataclasses.dataclass
class PicturesConfig(tfds.core.BuilderConfig):
    """How pictures are converted.

    Attributes:
        size: Length of the shorter side, pixels. Pictures with a shorter one are dropped.
        quality: JPEG quality, 1 to 100.
    """

    size: int = 256
    quality: int = DEFAULT_QUALITY


def config_of(size: int, quality: int = DEFAULT_QUALITY) -> PicturesConfig:
    """Return the config of a size, which is named after it: "256", or "256_q90" with another JPEG quality.

    Raises:
        UserError: A value is out of range.
    """
    if size < 1:
        raise UserError(f"expected size to be at least 1, got {size}")
    if not 1 <= quality <= 100:
        raise UserError(f"expected quality from 1 to 100, got {quality}")
    for config in _CONFIGS:  # tensorflow-datasets wants those of a class themselves
        if (config.size, config.quality) == (size, quality):
            return config
    name = str(size) if quality == DEFAULT_QUALITY else f"{size}_q{quality}"
    description = f"Shorter side of {size} pixels, JPEG of quality {quality}; smaller pictures are left out."
    return PicturesConfig(name=name, description=description, size=size, quality=quality)


_CONFIGS: list[PicturesConfig] = []
_CONFIGS += [config_of(256), config_of(512)]


class Pictures(dataset_builder.FileReaderBuilder, skip_registration=True):
    """Pictures with a shorter side of one length, as ArrayRecord files.

    The raw data are read from `DownloadConfig.manual_dir`. `beam_runner` and `beam_options` say where the work is done;
    without them it is done in this process.

    Attributes:
        LAYOUT: How the raw data are downloaded.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = _CONFIGS
    LAYOUT: ClassVar[raw.Layout] = raw.Layout()
    DESCRIPTION: ClassVar[str] = ""
    HOMEPAGE: ClassVar[str] = ""

    def __init__(
        self,
        *,
        images_per_shard: int = 4096,
        num_threads: int = 1,
        partial: bool = False,
        skip_damaged: bool = False,
        file_format: str = "array_record",
        **options: Any,
    ) -> None:
        """Make a builder.

        Args:
            images_per_shard: Pictures in a shard, if the raw data are single files and not archives.
            num_threads: Threads with which a worker converts the pictures of a unit.
            partial: Accept that archives are missing.
            skip_damaged: Accept that archives are damaged, with the pictures that can be read.
            file_format: Only "array_record"; the trainer needs records that can be read in any order.
            options: Those of `tfds.core.DatasetBuilder`: `data_dir`, `config`.
        """
        if file_format != "array_record":
            raise UserError(f"expected file_format to be 'array_record', got {file_format!r}")
        super().__init__(file_format=file_format, **options)
        self._images_per_shard = images_per_shard
        self._num_threads = num_threads
        self._partial = partial
        self._skip_damaged = skip_damaged

    @property
    def settings(self) -> Settings:
        """How pictures are converted."""
        config: Any = self.builder_config
        return Settings(config.size, config.quality)

    @property
    def work_folder(self) -> str:
        """Where converted units are kept until all are there."""
        return places.join(str(self._data_dir_root), f"{self.name}/{self.builder_config_name}/.units-{self.version}")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION or f"Photographs of the folder {self.name}.",
            features=features(),
            homepage=self.HOMEPAGE or None,
        )

    def find_units(self, folder: str) -> list[raw.Unit]:
        """Return the units of the raw data; see `raw.find_units`."""
        return raw.find_units(folder, self.LAYOUT, self._images_per_shard, partial=self._partial)

    def convert(self, folder: str, *, runner: Any = None, options: Any = None) -> tuple[list[raw.Unit], list[Done]]:
        """Convert the units that are not yet done, and keep them in the work folder.

        Args:
            folder: Folder of the raw data.
            runner: Runner of Beam.
            options: Options of Beam.

        Returns:
            All units, and the outcome of each.

        Raises:
            UserError: The raw data are not what is expected.
            WorkError: An archive is damaged.
            OSError: A folder cannot be used.
        """
        from cod_jax.datasets import pipeline  # Beam takes a second to import

        units = self.find_units(folder)
        left = [unit for unit in units if (done := self._read(unit)) is None or done.damaged]
        if left:
            pipeline.run(
                left, self.settings, self.work_folder, num_threads=self._num_threads, runner=runner, options=options
            )
        dones = [self._read(unit) for unit in units]
        if absent := [unit.name for unit, done in zip(units, dones, strict=True) if done is None]:
            raise WorkError(
                f"expected {len(units)} units in {self.work_folder}, got {len(units) - len(absent)} (not "
                f"{', '.join(absent[:_NUM_NAMED])}); all workers must be able to write that folder"
            )
        found = [done for done in dones if done is not None]
        damaged = [f"{name}: {reason}" for done in found for name, reason in done.damaged.items()]
        if damaged and not self._skip_damaged:
            raise WorkError(
                f"{len(damaged)} archives are damaged ({'; '.join(damaged[:_NUM_NAMED])}); download them again and "
                "run the same command, which keeps the others, or leave out what cannot be read with --skip-damaged"
            )
        return units, found

    def num_done(self) -> int:
        """Return how many units are in the work folder."""
        return sum(name.endswith(".json") for name in places.names_in(self.work_folder))

    def _read(self, unit: raw.Unit) -> Done | None:
        return read_done(unit, self.settings, self.work_folder)

    def difference(self, manifest: Mapping[str, Any], units: list[raw.Unit]) -> str:
        """Return how a finished dataset differs from the one that these units would give, "" if it does not.

        Args:
            manifest: Its manifest.
            units: The units of the raw data.
        """
        settings, source = manifest.get("settings", {}), units[0].folder
        if "images_per_shard" not in settings:  # of an earlier version, whose checksum is that of the units
            key = hashlib.sha256(json.dumps([[unit.name, unit.key] for unit in units]).encode()).hexdigest()
            is_same = manifest.get("raw_sha256") == key
            return "" if is_same else f"was made of other files than {source} holds now, or cut into other shards"
        if manifest.get("raw_sha256") != raw.checksum(units):
            return f"was made of other files than {source} holds now"
        before, now = settings["images_per_shard"], self._shard_length(units)
        return "" if before == now else f"was made with --images-per-shard {before}, not {now}"

    def _shard_length(self, units: list[raw.Unit]) -> int | None:
        """Return how many pictures a shard has at most; None where it has those of whole archives."""
        return None if units[0].are_archives else self._images_per_shard

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Convert what is left, and put shards, manifest and counts into the folder of the dataset."""
        units, dones = self.convert(
            str(dl_manager.manual_dir), runner=download_config.beam_runner, options=download_config.beam_options
        )
        folder = str(self.data_dir)
        places.write(places.join(folder, records.MANIFEST_NAME), self._fill(folder, units, dones))

    def put_at_address(self, units: list[raw.Unit], dones: list[Done]) -> None:
        """Put the dataset together at an address, as `download_and_prepare` does in a local folder.

        Storage has no renaming of folders, so the manifest comes last: a dataset without it is not complete.

        Raises:
            WorkError: No picture can be used.
            UserError: The storage cannot be written.
        """
        folder = str(self.data_dir)
        places.remove_folder(folder, first=records.MANIFEST_NAME)
        manifest = self._fill(folder, units, dones)
        with tempfile.TemporaryDirectory(prefix="cod_jax_") as local:
            self.info.write_to_directory(local)
            for path in Path(local).iterdir():
                places.write(places.join(folder, path.name), path.read_bytes())
        places.write(places.join(folder, records.MANIFEST_NAME), manifest)
        places.remove_folder(self.work_folder)

    def _fill(self, folder: str, units: list[raw.Unit], dones: list[Done]) -> bytes:
        """Put the shards into a folder, take note of the splits, and return the manifest."""
        splits, shards = [], []
        for split in dict.fromkeys(unit.split for unit in units):
            # Shards without pictures have no place.
            mine = [done.shard for unit, done in zip(units, dones, strict=True) if unit.split == split]
            mine = [shard for shard in mine if shard.names]
            template = self._get_filename_template(split_name=split)
            for number, shard in enumerate(mine):
                name = template.sharded_filepath(shard_index=number, num_shards=len(mine)).name
                places.link(places.join(self.work_folder, shard.file), places.join(folder, name))
                shards.append(dataclasses.replace(shard, file=name))
            if mine:
                splits.append(
                    tfds.core.SplitInfo(
                        name=split,
                        shard_lengths=[len(shard.names) for shard in mine],
                        num_bytes=sum(shard.size_bytes for shard in mine),
                        filename_template=template,
                    )
                )
        unreadable = {name: reason for done in dones for name, reason in done.unreadable.items()}
        if not shards:
            reasons = [f"{name}: {reason}" for name, reason in unreadable.items()]
            raise WorkError(
                f"none of the pictures can be used ({'; '.join(reasons[:_NUM_NAMED]) or 'all are too small'}); "
                "give larger or intact photographs, or a smaller size"
            )
        self.info.set_splits(tfds.core.SplitDict(splits))
        return records.manifest(
            shards,
            unreadable,
            {
                **dataclasses.asdict(self.settings),
                "images_per_shard": self._shard_length(units),
                "format": "jpeg",
                "records": "tf.train.Example",
            },
            num_too_small=sum(done.num_too_small for done in dones),
            damaged={name: reason for done in dones for name, reason in done.damaged.items()},
            raw_sha256=raw.checksum(units),
        )

    def _post_download_and_prepare_hook(self) -> None:
        places.remove_folder(self.work_folder)


class Folder(Pictures):
    """The pictures of any folder."""

    name = "folder"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder of photographs."

    def __init__(self, *, name: str = "folder", **options: Any) -> None:
        # One class for all folders; the library takes the name of the instance where there is one.
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(**options)


class Imagenet21k(Pictures):
    """ImageNet-21K of winter 2021."""

    name = "imagenet21k"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Unpack winter21_whole.tar.gz, and place the archives in it, such as n00004475.tar, or their pictures."
    )
    LAYOUT = raw.Layout({"train": r"n\d{8}\.tar"}, {"train": 19_167}, "n00004475.tar")
    DESCRIPTION = "ImageNet-21K, release of winter 2021."
    HOMEPAGE = "https://www.image-net.org"


class Openimages(Pictures):
    """OpenImages V7: its hosted training pictures, and those of validation and test where they have been placed."""

    name = "openimages"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Place train_0.tar.gz to train_9.tar.gz and train_a.tar.gz to train_f.tar.gz, or the folder train of "
        "downloaded pictures."
    )
    LAYOUT = raw.Layout(
        {
            "train": r"train_[0-9a-f]\.tar\.gz",
            "validation": r"validation\.tar\.gz",
            "test": r"test\.tar\.gz",
        },
        {"train": 16},
        "train_0.tar.gz",
    )
    DESCRIPTION = "OpenImages V7."
    HOMEPAGE = "https://storage.googleapis.com/openimages/web/index.html"


class Sa1b(Pictures):
    """The pictures of Segment Anything."""

    name = "sa1b"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Place sa_000000.tar to sa_000999.tar, or their pictures."
    LAYOUT = raw.Layout({"train": r"sa_\d{6}\.tar"}, {"train": 1000}, "sa_000000.tar")
    DESCRIPTION = "The pictures of SA-1B, without masks."
    HOMEPAGE = "https://ai.meta.com/datasets/segment-anything/"


BUILDERS: dict[str, type[Pictures]] = {cls.name: cls for cls in (Folder, Imagenet21k, Openimages, Sa1b)}
