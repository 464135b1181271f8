"""The Apache Beam pipeline that converts units, on this machine or on a cluster."""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]
from apache_beam.metrics.metric import Metrics  # pyright: ignore[reportMissingImports]
from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]

from cod_jax.datasets import raw
from cod_jax.datasets.convert import Settings, convert
from cod_jax.errors import WorkError


class _Convert(beam.DoFn):
    """Converts one unit, and counts its pictures for the pages of the runner."""

    def __init__(self, settings: Settings, folder: str, num_threads: int) -> None:
        self._arguments = (settings, folder)
        self._num_threads = num_threads

    def process(self, element: raw.Unit) -> None:
        done = convert(element, *self._arguments, num_threads=self._num_threads)
        counts = {
            "images": len(done.shard.names),
            "too_small": done.num_too_small,
            "unreadable": len(done.unreadable),
            "damaged_archives": len(done.damaged),
        }
        for name, count in counts.items():
            Metrics.counter("cod_jax", name).inc(count)


def run(
    units: Sequence[raw.Unit],
    settings: Settings,
    folder: str,
    *,
    num_threads: int = 1,
    runner: Any = None,
    options: PipelineOptions | None = None,
) -> None:
    """Convert units with Beam, and wait until all are done.

    Args:
        units: The units to convert.
        settings: How pictures are converted.
        folder: Folder for shards and their descriptions, which all workers can write.
        num_threads: Threads with which a worker converts the pictures of a unit.
        runner: The runner of Beam, if the options do not name one.
        options: Options of Beam.

    Raises:
        WorkError: The pipeline failed; the units that are done by then stay done.
    """
    try:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            _ = (
                pipeline
                | "Units" >> beam.Create(list(units), reshuffle=True)
                | "Convert" >> beam.ParDo(_Convert(settings, folder, num_threads))
            )
    except Exception as error:  # runners have errors of their own, which hold the traceback of the worker
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise WorkError(
            f"Apache Beam stopped ({reason}); the same command goes on where it was, and with --debug shows more"
        ) from error


def parse_options(arguments: Sequence[str], num_workers: int) -> PipelineOptions:
    """Read options of Beam; without a runner, processes of this machine do the work.

    Args:
        arguments: Options such as "--runner=FlinkRunner".
        num_workers: Processes on this machine.
    """
    local = [
        "--runner=DirectRunner",
        f"--direct_num_workers={num_workers}",
        "--default_sdk_harness_log_level=ERROR",
        f"--direct_running_mode={'multi_processing' if num_workers > 1 else 'in_memory'}",
    ]
    return PipelineOptions([*local, *arguments])
