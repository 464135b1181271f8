"""Reading of training batches by threads, or by worker processes."""

import multiprocessing
import os
import signal
import threading

import grain
from absl import flags

from cod_jax.input.config import DataConfig


def read_ahead(dataset: grain.MapDataset, config: DataConfig) -> grain.IterDataset:
    """Return a dataset whose elements are made ready before they are asked for, in the same order.

    Args:
        dataset: How to make them, by number. With worker processes it is pickled.
        config: The number of processes, of threads in each, and of elements that each keeps ready.
    """
    ready = num_ready(config)
    options = grain.ReadOptions(config.num_threads, prefetch_buffer_size=ready if config.num_threads else 0)
    elements = dataset.to_iter_dataset(options)
    if not config.num_workers:
        return elements
    if not flags.FLAGS.is_parsed():  # grain asks for settings of its own there
        flags.FLAGS.mark_as_parsed()
    # What its threads have made ready is enough: this buffer exists twice, on both sides.
    workers = grain.MultiprocessingOptions(config.num_workers, per_worker_buffer_size=1)
    return elements.mp_prefetch(workers, worker_init_fn=_prepare_worker)


def num_ready(config: DataConfig) -> int:
    """Return the most elements that a process keeps ready; of a worker process up to three more are on their way."""
    return max(config.prefetch, config.num_threads)


def _prepare_worker(index: int, count: int) -> None:
    """Make a worker process end when the training process does, and not before.

    Schedulers and terminals send their signals to all processes of a job; the training process then saves.
    """
    del index, count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
