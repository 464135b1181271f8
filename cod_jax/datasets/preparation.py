"""What `cod prepare --dataset` does: find what is left to do, let Beam do it, and tell what came out."""

import contextlib
import dataclasses
import io
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from cod_jax import files
from cod_jax.datasets import pipeline, places
from cod_jax.datasets.builders import BUILDERS, DEFAULT_QUALITY, Pictures, config_of
from cod_jax.errors import UserError
from cod_jax.input import records

_PROGRESS_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset that is prepared.

    Attributes:
        folder: Where it is.
        num_images: Images in all splits.
        num_too_small: Pictures that were dropped because they would have to be enlarged.
        unreadable: Pictures that cannot be read, with the reasons.
        damaged: Archives of which a part cannot be read, with the reasons.
        is_old: Whether an earlier run has prepared it.
    """

    folder: str
    num_images: int
    num_too_small: int
    unreadable: dict[str, str]
    damaged: dict[str, str]
    is_old: bool


def prepare(
    dataset: str,
    source: str,
    output: str,
    size: int,
    *,
    name: str | None = None,
    quality: int | None = None,
    images_per_shard: int = 4096,
    num_workers: int = 1,
    num_threads: int = 1,
    partial: bool = False,
    skip_damaged: bool = False,
    force: bool = False,
    options: Sequence[str] = (),
) -> Prepared:
    """Prepare a dataset, or go on where an earlier call was stopped.

    Args:
        dataset: One of `builders.BUILDERS`.
        source: Folder of the raw files.
        output: Folder of all datasets.
        size: Length of the shorter side, pixels.
        name: Name of a dataset that is made of a folder.
        quality: JPEG quality, 1 to 100; 95 if it is None.
        images_per_shard: Pictures in a shard, if the raw data are single files and not archives.
        num_workers: Processes on this machine, unless the options name another runner.
        num_threads: Threads in each of them.
        partial: Accept that archives are missing.
        skip_damaged: Accept that archives are damaged, with the pictures that can be read.
        force: Make the dataset again if it is there.
        options: Options of Beam.

    Raises:
        UserError: An argument cannot be used, or the dataset was made of other files or cut into other shards.
        WorkError: An archive is damaged, no picture can be used, or Beam failed.
        OSError: A folder cannot be used.
    """
    config = config_of(size, DEFAULT_QUALITY if quality is None else quality)
    shared: dict[str, Any] = {
        "config": config,
        "data_dir": output,
        "images_per_shard": images_per_shard,
        "num_threads": num_threads,
        "partial": partial,
        "skip_damaged": skip_damaged,
    }
    if name is not None:
        shared["name"] = name
    builder: Any = BUILDERS[dataset](**shared)
    beam_options = pipeline.parse_options(options, num_workers)
    units = builder.find_units(source)
    folder = str(builder.data_dir)
    old = _read_manifest(folder)
    if old is not None and not force:
        if difference := builder.difference(old, units):
            raise UserError(f"{folder} {difference}; pass --force to make it again, or name another --output")
        return _prepared(folder, old, is_old=True)
    _quiet()
    with _progress(builder, len(units)):
        # First, so that an old dataset stays until all units of the new one are there.
        units, dones = builder.convert(source, options=beam_options)
    if files.is_address(output):
        builder.put_at_address(units, dones)
    else:
        _put_together(builder, source, beam_options, replace=old is not None)
    manifest = _read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{places.join(folder, records.MANIFEST_NAME)} is missing; prepare the data again")
    return _prepared(folder, manifest, is_old=False)


def _put_together(builder: Any, source: str, beam_options: Any, *, replace: bool) -> None:
    """Let tensorflow-datasets make the dataset of the units, all of which are done."""
    modes = tfds.GenerateMode
    download = tfds.download.DownloadConfig(
        manual_dir=source,
        beam_options=beam_options,
        try_download_gcs=False,
        download_mode=modes.REUSE_CACHE_IF_EXISTS if replace else modes.REUSE_DATASET_IF_EXISTS,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloading
        builder.download_and_prepare(
            download_config=download, download_dir=places.join(builder.work_folder, "downloads")
        )


def _read_manifest(folder: str) -> dict[str, Any] | None:
    """Return the manifest of a dataset, or None where there is no dataset.

    Raises:
        UserError: It is damaged.
    """
    place = places.join(folder, records.MANIFEST_NAME)
    try:
        return json.loads(places.read(place))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise UserError(f"{place} is damaged ({error}); remove the dataset and prepare it again") from error


def _prepared(folder: str, manifest: dict[str, Any], *, is_old: bool) -> Prepared:
    return Prepared(
        folder,
        manifest["num_images"],
        manifest["num_too_small"],
        manifest["skipped"],
        manifest["damaged"],
        is_old,
    )


def _quiet() -> None:
    """Leave out what is not for users: each worker tells how it connects, and the library that it downloads nothing."""
    tfds.disable_progress_bar()
    for name in ("apache_beam", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _progress(builder: Pictures, num_units: int) -> Iterator[None]:
    """Show on a terminal how many units are done, as their descriptions appear in the work folder."""
    done = threading.Event()

    def show() -> None:
        with tqdm(total=num_units, unit="shard", disable=None) as bar:
            while not bar.disable and not done.wait(_PROGRESS_SECONDS):
                bar.update(builder.num_done() - bar.n)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
