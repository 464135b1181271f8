"""Pictures of a run: training batches and held-out images, checked to be the same in all processes."""

import hashlib
import json
import logging
from collections.abc import Mapping

import jax
import numpy as np

from cod_jax.errors import UserError
from cod_jax.input.pipeline import TrainBatches, build_train_batches, load_validation_images
from cod_jax.parallel.agreement import differing
from cod_jax.training.config import TrainConfig

# Parts of `TrainBatches.get_state` that copies of a folder need not share: times of modification, and what is compared
# as pixels.
_MAY_DIFFER = ("times_crc32", "held_out_sizes_crc32")

_logger = logging.getLogger(__name__)


def open_data(config: TrainConfig) -> tuple[TrainBatches, np.ndarray]:
    """Return this process's training batches, and the held-out images.

    Every process calls it, and waits until all have opened their data.

    Raises:
        UserError: The data cannot be used, or the processes read different pictures.
        OSError: Something cannot be read.
    """
    batches = build_train_batches(
        config.data,
        batch_size=config.batch_size,
        seed=config.stage_seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    held_out = load_validation_images(config.data, config.validation.num_wanted, batches.source)
    if jax.process_count() > 1:
        _check_same(batches.get_state(), held_out)
    validation = f"{len(held_out)} images to validate on" if config.validation.num_wanted else "validation is off"
    _logger.info("data: %d files for training from %s; %s", batches.num_images, config.data.source, validation)
    if batches.num_images < config.batch_size:
        _logger.warning(
            "there are %d files and %d images in a batch, so a batch holds files several times; give more photographs "
            "or set --config.batch_size",
            batches.num_images,
            config.batch_size,
        )
    if not len(held_out) and config.validation.num_wanted:
        _logger.warning("no image is held out, so nothing is validated and the newest checkpoint counts as the best")
    return batches, held_out


def _check_same(state: Mapping[str, int], held_out: np.ndarray) -> None:
    """Check that all processes read the same pictures.

    Otherwise a batch would mix the orders of several sets, and processes with other numbers of held-out images would
    wait for each other forever.

    Args:
        state: What `TrainBatches.get_state` returns.
        held_out: Held-out images.

    Raises:
        UserError: They do not.
    """
    training = {name: value for name, value in state.items() if name not in _MAY_DIFFER}
    contents = {"training files": json.dumps(training, sort_keys=True).encode(), "held-out images": held_out.tobytes()}
    found = differing({name: hashlib.sha256(content).digest() for name, content in contents.items()})
    if found:
        name, processes = next(iter(found.items()))
        raise UserError(
            f"expected all processes to read the same {name}, got others in process {', '.join(map(str, processes))} "
            "than in process 0; give all of them the same files, settings and version of Pillow, and look in the log "
            "of each process for files that it could not read"
        )
