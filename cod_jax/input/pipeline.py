"""Endless training batches and the validation images."""

import logging
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import UInt8

from cod_jax import images
from cod_jax.errors import UserError
from cod_jax.input import transforms
from cod_jax.input.config import DataConfig
from cod_jax.input.sources import Source, name_checksum, open_source, split_by_name
from cod_jax.input.workers import read_ahead, starting_workers
from cod_jax.storage import StorageError

Batch = dict[str, np.ndarray]

# What `Source.identity` tells about the content of the images.
_OF_CONTENT = ("sizes_crc32", "shards_crc32", "times_crc32")
# The first of these about the held-out images, which do not change the training.
_HELD_OUT = "held_out_sizes_crc32"

# What grain says when a worker process is gone.
_WORKER_ENDED = "terminated unexpectedly"

_logger = logging.getLogger(__name__)


class UsableImages:
    """Some images of a source; one that cannot be used is replaced by the next that can.

    The replacements depend on the files alone, so every process and every resumed run agree.

    Attributes:
        source: All images.
        skipped: Names of the unusable images met so far, each with the reason.
    """

    def __init__(self, source: Source, indices: Sequence[int], config: DataConfig) -> None:
        self.skipped: dict[str, str] = {}
        self.source = source
        self._indices = indices
        self._image_size = config.image_size
        # Large JPEG files may be decoded at reduced size if the smallest crop keeps twice the length it needs. Then the
        # resizing that follows decides the sharpness.
        smallest = math.sqrt(config.min_scale)
        self._short_edge = None if config.crop == "random" else math.ceil(2 * config.image_size / smallest)

    def __len__(self) -> int:
        return len(self._indices)

    def load(self, position: int) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return the image at a position, or None if it cannot be used.

        Raises:
            StorageError: The storage does not answer for minutes.
        """
        index = self._indices[position]
        name = self.source.names[index]
        if name in self.skipped:
            return None
        try:
            image_uint8 = images.to_uint8_rgb(self.source.read(index), name, warn=False, short_edge=self._short_edge)
        except StorageError:
            raise  # all pictures would be skipped, and others be trained on
        except (UserError, OSError) as error:
            self.skipped[name] = str(error).removeprefix(f"{name}: ")
            return None
        height, width = image_uint8.shape[:2]
        if min(height, width) < self._image_size:
            self.skipped[name] = f"{width}x{height} is smaller than {self._image_size}x{self._image_size}"
            return None
        return image_uint8

    def learn_reason(self, position: int) -> None:
        """Make `skipped` name an image that a worker process could not use."""
        name = self.source.names[self._indices[position]]
        if self.load(position) is not None:
            self.skipped[name] = "a worker process could not read it, and then it could be read"

    def load_or_next(self, position: int) -> tuple[UInt8[np.ndarray, "height width 3"], int]:
        """Return the image at a position, or the first usable one after it, starting over at the end, and how far.

        Raises:
            UserError: No image can be used, or the storage does not answer for minutes.
        """
        for offset in range(len(self)):
            image_uint8 = self.load((position + offset) % len(self))
            if image_uint8 is not None:
                return image_uint8, offset
        name, reason = next(iter(self.skipped.items()))
        raise UserError(
            f"{self.source.location}: none of the {len(self)} files can be used (for example {name}: {reason}); "
            "give larger or intact photographs, or set a smaller data.image_size"
        )


class CropForTraining:
    """Turn a position among the images into a training example."""

    def __init__(self, usable: UsableImages, config: DataConfig) -> None:
        self._usable = usable
        self._config = config

    def __call__(self, position: int, rng: np.random.Generator) -> Batch:
        """Return {"image": uint8 [S, S, 3], "position": int, "offset": int}, see `UsableImages.load_or_next`."""
        config = self._config
        image_uint8, offset = self._usable.load_or_next(position)
        height, width = image_uint8.shape[:2]
        if config.crop == "center":
            box = transforms.center_box(height, width)
        elif config.crop == "random":
            box = transforms.random_place(height, width, config.image_size, rng)
        else:
            box = transforms.random_box(height, width, config.image_size, config.min_scale, rng)
        square = transforms.crop_and_resize(image_uint8, box, config.image_size)
        if config.flip and rng.random() < 0.5:
            square = square[:, ::-1]
        return {"image": np.ascontiguousarray(square), "position": np.array(position), "offset": np.array(offset)}


class TrainBatches(Iterator[Batch]):
    """This process's share of an endless sequence of batches, which depends on the seed and the step alone.

    Attributes:
        num_images: Number of files or records in an epoch, including unusable ones.
        source: Where they come from, the held-out images included.
    """

    _iterator: grain.DatasetIterator[Batch] | None = None

    def __init__(
        self, dataset: grain.MapDataset, config: DataConfig, usable: UsableImages, identity: dict[str, int]
    ) -> None:
        self.num_images = len(usable)
        self.source = usable.source
        self._dataset, self._config, self._usable, self._identity = dataset, config, usable, identity
        self.set_step(0)

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
            UserError: No image can be used, or a worker process was killed.
        """
        try:
            if self._iterator is None:
                self._iterator = iter(read_ahead(self._dataset[self._step :], self._config))
                with starting_workers(self._config):
                    batch = next(self._iterator)
            else:
                batch = next(self._iterator)
        except RuntimeError as error:
            if _WORKER_ENDED not in str(error):
                raise
            raise UserError(
                f"a worker process that reads images ended ({str(error).partition('. ')[0]}); -9 often means too "
                "little memory: set a smaller data.num_workers or data.prefetch"
            ) from error
        self._step += 1
        for position, offset in zip(batch["position"].tolist(), batch["offset"].tolist(), strict=True):
            for passed in range(offset):
                self._usable.learn_reason((position + passed) % self.num_images)
        return {"image": batch["image"]}

    @property
    def skipped(self) -> dict[str, str]:
        """Names of the unusable images that this process has met, with reasons."""
        return dict(self._usable.skipped)

    def get_state(self) -> dict[str, int]:
        """Return the position and the settings it depends on, as JSON can hold them; the same in every process."""
        return {"step": self._step, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a position that `get_state` returned.

        Raises:
            UserError: The state belongs to another seed, batch size or set of images.
        """
        changes = _describe_changes(state, self._identity)
        if not changes and _differ("times_crc32", state, self._identity):
            _logger.warning(
                "the training files have the same names and sizes as at the checkpoint, but other modification times; "
                "the run goes on as if they had been copied; if some were replaced, start a new run"
            )
        if not changes and _differ(_HELD_OUT, state, self._identity):
            _logger.warning(
                "the held-out images are not those of the checkpoint, so validation losses before and after cannot be "
                "compared"
            )
        if changes:
            raise UserError(
                f"the training data changed since the checkpoint: {', and '.join(changes)}; undo that, or "
                "start a new run from the exported weights (config.init_from)"
            )
        self.set_step(state["step"])

    def set_step(self, step: int) -> None:
        """Continue after a number of batches, with any number of processes.

        Raises:
            UserError: The number is negative.
        """
        if step < 0:
            raise UserError(f"expected step to be at least 0, got {step}")
        self.close()
        self._step = step

    def close(self) -> None:
        """Stop the decoding threads and processes."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None


def build_train_batches(
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    source: Source | None = None,
) -> TrainBatches:
    """Build the training batches of one process.

    Every epoch visits each image once, in a new order. The shares of all processes, joined in order, are the batch that
    a single process would read, row by row.

    Args:
        config: Where the images are and how they are cropped.
        batch_size: Images in a batch over all processes.
        seed: Number in [0, 2**32) that decides order, crops and flips.
        process_index: Number of this process, from 0.
        process_count: Number of processes, a divisor of `batch_size`.
        source: `config.source`, if it is open already.

    Returns:
        Batches {"image": uint8 [batch_size // process_count, S, S, 3]}.

    Raises:
        UserError: An argument is out of range, or there are no images to train on.
        FileNotFoundError: The source does not exist.
    """
    if process_count < 1 or not 0 <= process_index < process_count:
        raise UserError(f"expected process_index from 0 to {process_count - 1}, got {process_index}")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"expected batch_size to be a positive multiple of {process_count} processes, got {batch_size}")
    if not 0 <= seed < 2**32:
        raise UserError(f"expected a seed from 0 to 2**32 - 1, got {seed}")
    source = _open(config.source) if source is None else source
    indices, held_out = split_by_name(source, 0 if config.validation_source else config.validation_modulus)
    if not indices:
        raise UserError(
            f"{config.source}: all {len(held_out)} files fall into validation; "
            "give more images or set data.validation_modulus=0"
        )
    epoch = source.epoch(indices)
    usable = UsableImages(source, epoch, config)
    usable.load_or_next(0)
    # Crops are drawn before the batch is divided among the processes, so they depend on the place in the whole batch.
    # Batching before the slice gives each process consecutive rows of it.
    dataset = (
        grain.MapDataset.range(len(epoch))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(CropForTraining(usable, config))
        .batch(batch_size // process_count, drop_remainder=True)[process_index::process_count]
    )
    names = "\n".join(source.names[index] for index in epoch)
    identity = {
        "batch_size": batch_size,
        "seed": seed,
        "num_images": len(epoch),
        "names_crc32": zlib.crc32(os.fsencode(names)),
        **source.identity(indices),
    }
    held_out_identity = source.identity(held_out)
    if "sizes_crc32" in held_out_identity:
        identity[_HELD_OUT] = held_out_identity["sizes_crc32"]
    return TrainBatches(dataset, config, usable, identity)


def load_validation_images(
    config: DataConfig, limit: int, source: Source | None = None
) -> UInt8[np.ndarray, "num_images size size 3"]:
    """Load centre crops of the held-out images.

    Args:
        config: Where the images are; see `DataConfig.validation_source` and `validation_modulus`.
        limit: Largest number of images. When there are more, those that come first by the CRC-32 of their names are
            taken, so that it is the same mixture every time.
        source: `config.source`, if it is open already.

    Returns:
        The crops [N, S, S, 3]; N is 0 when nothing is held out. Unusable images are left out and named in the log.

    Raises:
        UserError: `limit` is negative, or `validation_source` holds no usable image.
        FileNotFoundError: The source does not exist.
    """
    if limit < 0:
        raise UserError(f"expected limit to be at least 0, got {limit}")
    if config.validation_source or source is None:
        source = _open(config.validation_source or config.source)
    train, held_out = split_by_name(source, 0 if config.validation_source else config.validation_modulus)
    indices = train if config.validation_source else held_out
    indices = sorted(indices, key=lambda index: (name_checksum(source.names[index]), source.names[index]))
    usable = UsableImages(source, indices, config)
    crops: list[np.ndarray] = []
    for position in range(len(usable)):
        if len(crops) == limit:
            break
        image_uint8 = usable.load(position)
        if image_uint8 is not None:
            box = transforms.center_box(*image_uint8.shape[:2])
            crops.append(transforms.crop_and_resize(image_uint8, box, config.image_size))
    if usable.skipped:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in usable.skipped.items())
        _logger.warning("%d validation images were left out: %s", len(usable.skipped), reasons)
    if config.validation_source and limit and not crops:
        raise UserError(
            f"{config.validation_source}: none of the {len(usable)} files can be used for validation; "
            "give larger or intact photographs"
        )
    return np.stack(crops) if crops else np.zeros((0, config.image_size, config.image_size, 3), np.uint8)


def _differ(name: str, then: Mapping[str, Any], now: Mapping[str, int]) -> bool:
    """Return whether both have a number, and not the same."""
    return name in then and name in now and then[name] != now[name]


def _describe_changes(then: Mapping[str, Any], now: Mapping[str, int]) -> list[str]:
    """Describe the differences between two identities of `TrainBatches`."""
    changes = [
        f"{name} was {then.get(name)} and is {value}"
        for name, value in now.items()
        if name not in ("num_images", "names_crc32", _HELD_OUT, *_OF_CONTENT) and then.get(name) != value
    ]
    if then.get("num_images") != now["num_images"]:
        changes.append(
            f"there were {then.get('num_images')} files to train on and there are {now['num_images']}, because files "
            "were added, removed or renamed, or others are held out"
        )
    elif then.get("names_crc32") != now["names_crc32"]:
        changes.append(f"the {now['num_images']} files to train on have different names")
    # Checkpoints of earlier versions do not have these.
    elif any(_differ(name, then, now) for name in ("sizes_crc32", "shards_crc32")):
        changes.append(f"some of the {now['num_images']} files to train on were replaced by others of the same names")
    return changes


def _open(path: str) -> Source:
    if not path:
        raise UserError(
            "data.source is empty; set --config.data.source=FOLDER to a folder of photographs or shards, or tfds:NAME"
        )
    return open_source(path)
