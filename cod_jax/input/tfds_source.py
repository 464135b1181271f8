"""Images of a dataset that tensorflow-datasets has prepared, read without TensorFlow."""

import re
import zlib
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from cod_jax import files, storage
from cod_jax.errors import UserError
from cod_jax.input import reading, records
from cod_jax.input.source import TFDS_PREFIX, Source

# The file that tells a prepared dataset from other folders.
INFO_NAME = "dataset_info.json"
DEFAULT_SPLIT = "train"
_VERSION = r"[\d*]+\.[\d*]+\.[\d*]+"
_LOCATION = re.compile(rf"tfds:(?P<dataset>(\w+://)?[^:]+(:{_VERSION})?)(:(?P<split>.+))?")
# In the names of the files that hold the records.
_RECORDS = ".array_record"


class TfdsSource(Source):
    """The encoded images of one split of a prepared dataset with ArrayRecord files.

    The dataset has its name in tensorflow-datasets, or is the folder that holds its dataset_info.json: an address, or a
    path that begins with "/", "." or "~". The code that prepared the dataset is not needed. At an address of Google
    Cloud Storage the records are read when they are needed; all of another address are copied into the user's cache.

    Attributes:
        location: The dataset as it was named, "tfds:NAME[:SPLIT]" or "tfds:FOLDER[:SPLIT]", for messages.
        names: Names of the photographs, where `cod prepare` made the dataset and left a manifest with them. Otherwise
            dataset, version, file and place in the file of each image. A name does not depend on the part of a split
            that is read, so neither does its place in training or validation.
    """

    def __init__(self, location: str) -> None:
        tfds, damage = _import(location)
        match = _LOCATION.fullmatch(location)
        if match is None:
            raise UserError(
                f"expected tfds:NAME or tfds:NAME:SPLIT, with the name or the folder of a prepared dataset, "
                f"got {location!r}"
            )
        split = match["split"] or DEFAULT_SPLIT
        builder = _open_prepared(tfds, match["dataset"], location, damage)
        info = builder.info
        formats = info.available_file_formats()
        if tfds.core.FileFormat.ARRAY_RECORD not in formats:
            raise UserError(
                f"{location}: expected array_record files, got "
                f"{' and '.join(sorted(one.value for one in formats)) or 'none'}; prepare the dataset with "
                "file_format='array_record'"
            )
        self._image = _image_feature(tfds, info.features, location)
        self._features = tfds.features.FeaturesDict({self._image: info.features[self._image]})
        self._decoders = {self._image: tfds.decode.SkipDecoding()}
        self._damage = damage
        try:
            parts = info.splits[split].file_instructions
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{location}: the split {split!r} cannot be read ({_first_line(error).partition('. ')[0]}); "
                f"the dataset has {', '.join(sorted(info.splits))}"
            ) from error
        if not parts:
            raise UserError(f"{location} holds no images; name another split")
        folder = Path(builder.data_dir)
        place, sizes = _records_of(match["dataset"], folder, {part.basename() for part in parts})
        for part in parts:
            if part.basename() not in sizes:
                raise FileNotFoundError(f"{location}: {place}/{part.basename()} is missing; prepare the dataset again")
        records.allow_open_files(len(parts))
        # With the records to take of each file, none is opened before it is read.
        self._records: Any = reading.open_records(
            [f"{place}/{part.basename()}[{part.skip}:{part.skip + part.take}]" for part in parts]
        )
        self.location = location
        self._identity: dict[str, int] = {}
        if (folder / records.MANIFEST_NAME).is_file():
            shards = {shard.file: shard for shard in records.read_manifest(folder)}
            try:
                mine = [shards[part.basename()] for part in parts]
            except KeyError as error:
                raise UserError(
                    f"{location}: {records.MANIFEST_NAME} does not list {error.args[0]}; prepare the dataset again"
                ) from error
            for shard in mine:
                records.check_size(place, shard, sizes[shard.file])
            self._identity = {"shards_crc32": zlib.crc32("".join(shard.sha256 for shard in mine).encode())}
            self.names = [
                name
                for part, shard in zip(parts, mine, strict=True)
                for name in shard.names[part.skip : part.skip + part.take]
            ]
        else:
            self.names = [
                f"{info.full_name}/{part.basename()}__{number}"
                for part in parts
                for number in range(part.skip, part.skip + part.take)
            ]

    def identity(self, indices: Sequence[int]) -> dict[str, int]:
        """Return a checksum of the files' checksums in the manifest, if there is one; see `Source.identity`."""
        del indices
        return self._identity

    def read(self, index: int) -> bytes:
        """Return the encoded image at an index.

        Raises:
            UserError: The record is damaged.
            StorageError: The storage does not answer for minutes.
        """
        try:
            record = self._records[index]
        except RuntimeError as error:
            reading.check_answered(error, self.location.removeprefix(TFDS_PREFIX))
            raise UserError(f"the record is damaged ({_first_line(error)})") from error
        except self._damage as error:
            raise UserError(f"the record is damaged ({_first_line(error)})") from error
        try:
            return self._features.deserialize_example_np(record, decoders=self._decoders)[self._image]
        except self._damage as error:
            raise UserError(f"the record is damaged ({_first_line(error)})") from error


def _import(location: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """Return the library, as Any because most of it has no types, and the errors that it raises for damaged files."""
    try:
        import tensorflow_datasets as tfds
        from google.protobuf import json_format, message
    except ModuleNotFoundError as error:
        raise UserError(
            f"{location} needs the package {error.name}; install the extra tfds: pip install 'cod_jax[tfds]'"
        ) from error
    return tfds, (RuntimeError, KeyError, ValueError, json_format.ParseError, message.DecodeError)


def _open_prepared(tfds: Any, dataset: str, location: str, damage: tuple[type[Exception], ...]) -> Any:
    """Return a builder that only reads; unlike `tfds.builder`, it never asks the network about a dataset."""
    from tensorflow_datasets.core import read_only_builder

    # Of an address what describes the dataset is copied, and its records stay where they are.
    at_address = files.is_address(dataset)
    folder = storage.fetch(dataset, [INFO_NAME], wanted=lambda name: _RECORDS not in name) if at_address else None
    try:
        if folder is not None:
            return tfds.builder_from_directory(folder)
        if dataset[0] not in "/.~":
            return read_only_builder.builder_from_files(dataset)
        folder = Path(dataset).expanduser()
        if not (folder / INFO_NAME).is_file():
            raise FileNotFoundError(
                f"{location}: {folder} holds no {INFO_NAME}; give the folder of a prepared dataset, which is "
                "named after its version"
            )
        return tfds.builder_from_directory(folder)
    except tfds.core.DatasetNotFoundError as error:
        folders = " or ".join(str(folder) for folder in tfds.core.utils.file_utils.list_data_dirs())
        raise FileNotFoundError(
            f"{location}: no dataset {dataset} is prepared in {folders}; prepare it with tensorflow-datasets and "
            "file_format='array_record', set TFDS_DATA_DIR, or write tfds:/path/to/its/folder"
        ) from error
    except (ImportError, *damage) as error:
        raise UserError(
            f"{location} cannot be opened ({_first_line(error)}); check the name, or prepare the dataset again"
        ) from error


def _records_of(dataset: str, folder: Path, names: Set[str]) -> tuple[str, dict[str, int]]:
    """Return where the records of a dataset can be read, and the size in bytes of each file there by its name.

    Args:
        dataset: The dataset as it was named.
        folder: The folder that describes it, a copy of it if the dataset is at an address.
        names: The files to read.
    """
    if not files.is_address(dataset):
        return str(folder), {file.name: file.stat().st_size for file in folder.glob(f"*{_RECORDS}*")}
    url = storage.as_url(dataset)
    if url.startswith(records.READ_IN_PLACE):
        return url, storage.list_files(url)
    return str(storage.fetch(url, [INFO_NAME], wanted=lambda name: name in names)), storage.list_files(url)


def _image_feature(tfds: Any, features: Any, location: str) -> str:
    """Return the name of the feature that holds the pictures: "image", or the only one of its kind."""
    images = [
        name
        for name, feature in (features.items() if isinstance(features, tfds.features.FeaturesDict) else ())
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and np.dtype(feature.np_dtype) == np.uint8
    ]
    if "image" in images:
        return "image"
    if len(images) != 1:
        found = f"several: {', '.join(sorted(images))}" if images else "none"
        raise UserError(
            f"{location}: expected a feature 'image' or a single feature of images with 8 bits per channel, "
            f"got {found}; choose another dataset"
        )
    return images[0]


def _first_line(error: Exception) -> str:
    """Return the first line of a message; those of tensorflow-datasets span many."""
    text = str(error.args[0]) if error.args else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
