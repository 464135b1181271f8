"""Reading of training batches by threads, or by worker processes."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

import grain
from absl import flags

from cod_jax.input.config import DataConfig

# Schedulers and terminals send them to all processes of a job; the training process then saves.
_OF_THE_JOB = (signal.SIGINT, signal.SIGTERM)


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


@contextlib.contextmanager
def starting_workers(config: DataConfig) -> Iterator[None]:
    """Start worker processes within the block: no signal ends them in the seconds before they ignore it.

    They inherit that signals wait. Those for this process wait until the end of the block.
    """
    if not config.num_workers:
        yield
        return
    resource_tracker.ensure_running()  # started later, it would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_JOB)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def num_ready(config: DataConfig) -> int:
    """Return the most elements that a process keeps ready; of a worker process up to three more are on their way."""
    return max(config.prefetch, config.num_threads)


def _prepare_worker(index: int, count: int) -> None:
    """Make a worker process end when the training process does, and not before."""
    del index, count
    for number in _OF_THE_JOB:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
