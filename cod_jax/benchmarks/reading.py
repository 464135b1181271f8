"""How fast training images are read, decoded and cropped."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from cod_jax.cores import num_cores
from cod_jax.errors import UserError
from cod_jax.input.pipeline import TrainBatches, build_train_batches
from cod_jax.input.workers import num_ready


def report_on_input(
    config: str, changes: Sequence[str], *, batch_size: int, repeats: int, rate: int | None = None
) -> dict[str, Any]:
    """Measure how fast a training config's images are read, by one core and by its threads.

    Args:
        config: FILE[:OPTIONS].
        changes: Arguments `--config.FIELD=VALUE`; `data.source` must be among them, unless the config names it.
        batch_size: Images in a batch.
        repeats: Batches that are measured.
        rate: Images per second that a host's devices take, if it is known.

    Returns:
        JSON values: "input" with the source, the size of the crops, "images_per_core_second" of CPU time,
        "images_per_second" with the config's "num_threads" and "num_workers", "num_cores" of this process, and with a
        rate "rate", "cores_needed" for it, and "waiting_share" of the time of steps that take it, on this machine.

    Raises:
        UserError: The config or its source cannot be used.
        OSError: The source cannot be read.
    """
    from cod_jax.training.config import TrainConfig
    from cod_jax.training.config_files import read_settings

    data = TrainConfig.from_dict(read_settings(config, changes), trusted=True).data
    if not data.source:
        raise UserError("data.source is empty; set --config.data.source=FOLDER to what is to be read")
    cpu_seconds = _time(dataclasses.replace(data, num_threads=0, num_workers=0), batch_size, repeats)[1]
    seconds = _time(data, batch_size, repeats)[0]
    num_images = batch_size * repeats
    measured = {
        "source": data.source,
        "image_size": data.image_size,
        "crop": data.crop,
        "batch_size": batch_size,
        "images_per_core_second": num_images / cpu_seconds,
        "num_threads": data.num_threads,
        "num_workers": data.num_workers,
        "images_per_second": num_images / seconds,
        "num_cores": num_cores(),
    }
    if rate is not None:
        measured |= {
            "rate": rate,
            "cores_needed": rate / measured["images_per_core_second"],
            "waiting_share": max(0.0, 1 - measured["images_per_second"] / rate),
        }
    return {"input": measured}


def _time(data: Any, batch_size: int, repeats: int) -> tuple[float, float]:
    """Return the time on the clock and that of all processors for some batches."""
    batches = build_train_batches(data, batch_size=batch_size, seed=0)
    try:
        # What threads and processes have prepared beforehand does not count.
        _take(batches, 1 + (num_ready(data) if data.num_threads else 0) + data.num_workers * (num_ready(data) + 3))
        start, start_cpu = time.perf_counter(), time.process_time()
        _take(batches, repeats)
        return time.perf_counter() - start, time.process_time() - start_cpu
    finally:
        batches.close()


def _take(batches: TrainBatches, count: int) -> None:
    for _ in range(count):
        next(batches)
