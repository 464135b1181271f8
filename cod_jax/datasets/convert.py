"""The work on one unit: its pictures are shrunk and written as a shard, with a description beside it."""

import dataclasses
import functools
import hashlib
import json
import os
from typing import Any

# tensorflow-datasets replaces Python's import while it is imported, which other threads must not see: so it is imported
# here and not where it is used.
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_datasets.proto import tf_example_pb2

from cod_jax import files
from cod_jax.datasets import places, raw
from cod_jax.errors import UserError
from cod_jax.input import records
from cod_jax.input.prepare import TooSmallError, map_in_order, shrink


@dataclasses.dataclass(frozen=True)
class Settings:
    """How pictures are converted.

    Attributes:
        size: Length of the shorter side, pixels. Pictures with a shorter one are dropped.
        quality: JPEG quality, 1 to 100.
    """

    size: int
    quality: int


@dataclasses.dataclass(frozen=True)
class Done:
    """The outcome of a unit, as it is kept beside the shard.

    Attributes:
        key: Checksum of the raw files and the settings.
        shard: The shard, whose file has the name of the unit.
        num_too_small: Pictures that were dropped because they would have to be enlarged.
        unreadable: Pictures that cannot be read, with the reasons.
        damaged: Archives that are damaged, with the reasons; the unit is not complete then.
    """

    key: str
    shard: records.Shard
    num_too_small: int
    unreadable: dict[str, str]
    damaged: dict[str, str]


def convert(unit: raw.Unit, settings: Settings, folder: str, *, num_threads: int = 1) -> Done:
    """Write the shard of a unit, and then its description, unless both are there.

    Either appears when it is complete, so a worker may be stopped at any time, and two may do the same unit.

    Args:
        unit: The unit.
        settings: How pictures are converted.
        folder: Folder for shards and descriptions.
        num_threads: Threads that decode, shrink and encode.

    Raises:
        OSError: A raw file or the folder cannot be used.
        UserError: Remote storage cannot be used.
    """
    done = read_done(unit, settings, folder)
    if done is not None and not done.damaged:
        return done
    num_too_small = 0
    unreadable: dict[str, str] = {}
    names: list[str] = []
    damaged: dict[str, str] = {}

    def shrunk(picture: tuple[str, bytes | Exception]) -> tuple[str, bytes | Exception]:
        name, data = picture
        if isinstance(data, Exception):
            return name, data
        try:
            return name, shrink(data, name, settings.size, quality=settings.quality)
        except (UserError, OSError) as error:
            return name, error

    name = unit.name + records.SHARD_SUFFIX
    with places.new_file(places.join(folder, name)) as path:
        # Images are compressed already. With groups of one, each record can be read on its own.
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        try:
            for picture, result in map_in_order(shrunk, raw.read_pictures(unit), num_threads):
                if isinstance(result, TooSmallError):
                    num_too_small += 1
                elif isinstance(result, raw.DamagedArchiveError):
                    damaged[picture] = str(result)
                elif isinstance(result, Exception):
                    unreadable[picture] = files.reason(result).removeprefix(f"{picture}: ")
                else:
                    writer.write(as_example(picture, result))
                    names.append(picture)
        finally:
            writer.close()
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        shard = records.Shard(name, path.stat().st_size, checksum, names)
    done = Done(_key(unit, settings), shard, num_too_small, unreadable, damaged)
    text = json.dumps(dataclasses.asdict(done))
    places.write(places.join(folder, _description(unit)), text.encode())
    return done


def read_done(unit: raw.Unit, settings: Settings, folder: str) -> Done | None:
    """Return the outcome of a unit, or None if it is still to be done; a damaged one is worth another try.

    Raises:
        UserError: The description is damaged, or remote storage cannot be read.
        OSError: The folder cannot be read.
    """
    place = places.join(folder, _description(unit))
    try:
        values = json.loads(places.read(place))
        done = Done(**{**values, "shard": records.Shard(**values["shard"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{place} is damaged ({error}); remove it and prepare the data again") from error
    return done if done.key == _key(unit, settings) else None


def as_example(name: str, image: bytes) -> bytes:
    """Return a record: a serialised `tf.train.Example` with the fields of `features`."""
    record = features().serialize_example({"image": image, "name": os.fsencode(name)})
    # The order of the fields is that of a table whose order changes from process to process.
    example: Any = tf_example_pb2
    return example.Example.FromString(record).SerializeToString(deterministic=True)


@functools.cache
def features() -> Any:
    """Return the features of all these data sets: "image", a JPEG file, and "name", its name in the raw data."""
    return tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"), "name": tfds.features.Text()}
    )


def _description(unit: raw.Unit) -> str:
    return f"{unit.name}.json"


def _key(unit: raw.Unit, settings: Settings) -> str:
    text = json.dumps([unit.key, dataclasses.asdict(settings)])
    return hashlib.sha256(text.encode()).hexdigest()
